//! Commits in the name of what was assigned at one time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::group::Command;
use super::lease::Leases;
use super::offsets::{Commit, Offset, OffsetAndMetadata};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// What the length of a string in a request can say. Brokers allow less: 4,096 bytes by default.
const METADATA: usize = i16::MAX as usize;

/// The way to the group's task.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    pub(super) group: Arc<str>,
    pub(super) sender: mpsc::Sender<Command>,
    pub(super) timeout: Duration,
}

/// Commits offsets of the partitions that were assigned when it was made by
/// [`Consumer::committer`](super::Consumer::committer); cheap to clone, for any task.
///
/// Once a partition was given up it commits nothing for it any more, even if it comes back later; for those that were kept it
/// goes on.
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
    leases: Leases,
    group: Option<Commands>,
}

impl Committer {
    pub(super) fn new(leases: Leases, group: Option<Commands>) -> Self {
        Self { leases, group }
    }

    /// See [`Consumer::commit`](super::Consumer::commit), also for errors and cancellation.
    pub async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        self.commit_all(offsets.iter().map(|(p, offset)| (p.clone(), OffsetAndMetadata::new(*offset))).collect()).await
    }

    /// As [`commit`](Self::commit), of offsets with their leader epochs and metadata.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit), and what the coordinator says of metadata that is too long.
    pub async fn commit_with(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.commit_all(offsets.to_vec()).await
    }

    async fn commit_all(&self, offsets: Vec<Offset>) -> Result<()> {
        let Some(commands) = &self.group else {
            let what = "nothing can be committed: this consumer reads without a group (subscribe to read with one)";
            return Err(Error::new(ErrorKind::GroupMembership, what));
        };
        if offsets.is_empty() {
            return Ok(());
        }
        if let Some((p, at)) = offsets.iter().find(|(_, at)| at.offset < 0) {
            let what = format!("offset {} of {p} can't be committed: offsets are not negative", at.offset);
            return Err(Error::new(ErrorKind::OffsetOutOfRange, what));
        }
        if let Some((p, at)) = offsets.iter().find(|(_, at)| at.metadata.len() > METADATA) {
            let len = at.metadata.len();
            let what =
                format!("the metadata of {p} has {len} bytes and can't be committed: allowed is up to {METADATA}");
            return Err(Error::new(ErrorKind::Config, what));
        }
        let lease = |(p, at): Offset| {
            let lease = self.leases.of(&p).ok_or_else(|| not_ours(&p, at.offset, &commands.group))?;
            Ok((lease, at))
        };
        let offsets = offsets.into_iter().map(lease).collect::<Result<_>>()?;
        let deadline = Instant::now() + commands.timeout;
        let (reply, replied) = oneshot::channel();
        let commit = Commit { offsets, deadline, reply: Some(reply) };
        let outcome = async {
            let command = Command::Commit(commit);
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

pub(super) fn not_ours(partition: &TopicPartition, offset: i64, group: &str) -> Error {
    let what = format!(
        "offset {offset} of {partition} was not committed: the partition is not, or no longer, assigned to this member of group {group:?}"
    );
    Error::new(ErrorKind::GroupMembership, what)
}
