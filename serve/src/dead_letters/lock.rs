//! A lock on a dead-letter topic: who has it is the only member of a group.

use std::time::Duration;

use ailurus::{Admin, Client, Consumer, ConsumerEvent, Error, ErrorKind, OffsetReset, Result};

/// Maximum time for joining the group: brokers wait some seconds for further members of a new one.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The member of the group; it commits nothing.
#[derive(Debug)]
pub struct Lock {
    consumer: Consumer,
    group: String,
}

impl Lock {
    /// Joins the topic's group.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if another command is in it; [`ErrorKind::Timeout`] if it can't be joined.
    pub async fn take(client: &Client, topic: &str) -> Result<Self> {
        let group = format!("{topic}.replay");
        let session = client.config().consumer.session_timeout;
        let admin = Admin::new(client);
        if let Some(member) = admin.describe_group(&group).await?.members.first() {
            let what = format!(
                "another command works on {topic}: {} on {} is in the group {group}. If it was killed, it is removed \
                 after its session timeout ({session:?} here)",
                member.client_id, member.host
            );
            return Err(refused(what));
        }
        let partitions = admin.describe_topic(topic).await?.partitions.len();
        let mut config = client.config().consumer.clone();
        config.offset_reset = OffsetReset::Latest; // there is nothing to read here
        let mut consumer = client.consumer(&group).config(config).subscribe([topic]).await?;
        let joined = tokio::time::timeout(JOIN_TIMEOUT, async {
            loop {
                if let ConsumerEvent::Assigned(all) = consumer.recv().await? {
                    consumer.pause(&all)?; // it reads nothing, and has no outages of reading to report
                    return Ok::<_, Error>(all.len());
                }
            }
        });
        let outcome = match joined.await {
            Ok(Ok(all)) if all == partitions => return Ok(Self { consumer, group }),
            Ok(Ok(_)) => {
                let what = format!("another command starts on {topic} at the same time (group {group})");
                Err(refused(what))
            }
            Ok(Err(e)) => Err(e.context(format!("joining group {group}"))),
            Err(_) => {
                let what = format!("group {group} could not be joined within {JOIN_TIMEOUT:?}");
                Err(Error::new(ErrorKind::Timeout, what))
            }
        };
        _ = consumer.close().await; // the error before it is the one to report
        outcome
    }

    /// Checks that it is the only member still.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if another command has joined the group.
    pub async fn check(&mut self) -> Result<()> {
        // Only the events that are there already.
        while let Ok(event) = tokio::time::timeout(Duration::ZERO, self.consumer.recv()).await {
            if let ConsumerEvent::Revoked(_) | ConsumerEvent::Lost(_) = event? {
                let what = format!(
                    "another command has joined the group {}: this one has stopped; run it again for the rest",
                    self.group
                );
                return Err(refused(what));
            }
        }
        Ok(())
    }

    /// Leaves the group.
    ///
    /// # Errors
    /// If the coordinator does not respond: the member is removed after its session timeout.
    pub async fn release(self) -> Result<()> {
        self.consumer.close().await
    }
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::GroupMembership, what)
}
