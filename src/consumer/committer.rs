//! Commits in the name of one assignment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::group::Command;
use super::offsets::Commit;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// The way to the group's task.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    pub(super) group: Arc<str>,
    pub(super) sender: mpsc::Sender<Command>,
    pub(super) timeout: Duration,
}

/// Commits offsets in the name of one assignment; made by [`Consumer::committer`](super::Consumer::committer), cheap to clone, for any task.
///
/// Once that assignment is over it commits nothing any more, even if the same partitions come back with the next one.
///
/// ```no_run
/// # async fn example(consumer: ailurus::Consumer) -> ailurus::Result<()> {
/// let committer = consumer.committer();
/// tokio::spawn(async move {
///     committer.commit(&[(ailurus::TopicPartition::new("orders", 0), 42)]).await
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Committer {
    epoch: u64,
    group: Option<Commands>,
}

impl Committer {
    pub(super) fn new(epoch: u64, group: Option<Commands>) -> Self {
        Self { epoch, group }
    }

    /// See [`Consumer::commit`](super::Consumer::commit), also for errors and cancellation.
    pub async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        let Some(commands) = &self.group else {
            let what = "nothing can be committed: this consumer reads without a group (subscribe to read with one)";
            return Err(Error::new(ErrorKind::GroupMembership, what));
        };
        if offsets.is_empty() {
            return Ok(());
        }
        if let Some((p, offset)) = offsets.iter().find(|(_, offset)| *offset < 0) {
            let what = format!("offset {offset} of {p} can't be committed: offsets are not negative");
            return Err(Error::new(ErrorKind::OffsetOutOfRange, what));
        }
        let deadline = Instant::now() + commands.timeout;
        let (reply, replied) = oneshot::channel();
        let commit = Commit { offsets: offsets.to_vec(), deadline, reply: Some(reply) };
        let outcome = async {
            let command = Command::Commit { epoch: self.epoch, commit };
            let closed =
                || Error::new(ErrorKind::Closed, format!("the consumer of group {:?} has ended", commands.group));
            commands.sender.send(command).await.map_err(|_| closed())?;
            replied.await.map_err(|_| closed())?
        };
        tokio::time::timeout_at(deadline.into(), outcome).await.unwrap_or_else(|_| {
            let what = format!(
                "committing offsets of group {:?} was not answered within {:?}: they may have been committed or not",
                commands.group, commands.timeout
            );
            Err(Error::new(ErrorKind::Timeout, what))
        })
    }
}
