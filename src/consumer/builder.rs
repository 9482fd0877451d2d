//! The start of a consumer.

use std::time::Duration;

use super::{Consumer, StartOffset};
use crate::cluster::Client;
use crate::config::{
    AssignorKind, ConsumerConfig, GroupName, GroupProtocol, IsolationLevel, OffsetReset, consumer_settings,
};
use crate::error::Result;
use crate::record::TopicPartition;

/// Starts a member of a consumer group with the client's settings, or others.
///
/// ```no_run
/// # async fn example(client: &ailurus::Client) -> ailurus::Result<()> {
/// use ailurus::IsolationLevel;
///
/// let committed = IsolationLevel::ReadCommitted;
/// let consumer = client.consumer("billing").isolation_level(committed).subscribe(["orders"]).await?;
/// # consumer.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct ConsumerBuilder {
    client: Client,
    group: String,
    config: ConsumerConfig,
}

consumer_settings!(ConsumerBuilder [.config] by_field, all by config);

impl ConsumerBuilder {
    /// Joins the group and reads the assigned partitions, from their committed offsets, or by
    /// [`offset_reset`](ConsumerConfig::offset_reset) where there are none.
    ///
    /// Returns when the topics are known; the member joins in the background, and the first [`ConsumerEvent::Assigned`](super::ConsumerEvent::Assigned) reports
    /// its assignment. A topic that does not exist is created if
    /// [`allow_auto_topic_creation`](crate::Config::allow_auto_topic_creation) is set and the broker allows it too.
    ///
    /// Waits without a limit while no broker can be reached; a warning in the log says why, and the client's health shows the
    /// group as `joining`. Set a deadline around the call if you need one.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a setting, the group or the topics are invalid;
    /// [`ErrorKind::UnknownTopic`](crate::ErrorKind::UnknownTopic) if a topic does not exist and is not created;
    /// [`ErrorKind::Authorization`](crate::ErrorKind::Authorization) if it may not be read;
    /// [`ErrorKind::Authentication`](crate::ErrorKind::Authentication) if the client's first login is rejected.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind but, perhaps, a topic that was created.
    pub async fn subscribe(self, topics: impl IntoIterator<Item: Into<String>>) -> Result<Consumer> {
        let topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        Consumer::subscribe(&self.client, &self.group, &topics, self.config).await
    }
}

/// Starts a consumer without a group with the client's settings, or others.
///
/// ```no_run
/// # async fn example(client: &ailurus::Client) -> ailurus::Result<()> {
/// use ailurus::{StartOffset, TopicPartition};
///
/// let start = (TopicPartition::new("orders", 0), StartOffset::Earliest);
/// let consumer = client.reader().assign([start]).await?;
/// # consumer.close().await
/// # }
/// ```
#[derive(Debug)]
pub struct ReaderBuilder {
    client: Client,
    config: ConsumerConfig,
}

consumer_settings!(ReaderBuilder [.config] by_field, all by config);

impl ReaderBuilder {
    /// Reads the given partitions without a group: nothing is committed, and other consumers are not affected. The first
    /// event is [`ConsumerEvent::Assigned`](super::ConsumerEvent::Assigned).
    ///
    /// Partitions that a topic gets later are not read. Waits for a broker as
    /// [`subscribe`](ConsumerBuilder::subscribe) does.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a setting is invalid or there is no partition;
    /// [`ErrorKind::UnknownTopic`](crate::ErrorKind::UnknownTopic) if a topic or partition does not exist: none is created;
    /// [`ErrorKind::Authorization`](crate::ErrorKind::Authorization) and
    /// [`ErrorKind::Authentication`](crate::ErrorKind::Authentication) as for `subscribe`.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn assign(self, partitions: impl IntoIterator<Item = (TopicPartition, StartOffset)>) -> Result<Consumer> {
        let partitions = partitions.into_iter().collect();
        Consumer::assign(&self.client, partitions, self.config).await
    }
}

impl Client {
    /// Configures a member of a consumer group: by default with [`Config::consumer`](crate::Config::consumer). `None` is
    /// the group of the settings, [`Config::group_id`](crate::Config::group_id).
    #[must_use = "a builder does nothing by itself"]
    pub fn consumer(&self, group: impl GroupName) -> ConsumerBuilder {
        let group = group.resolve(self.config()).to_owned();
        ConsumerBuilder { client: self.clone(), group, config: self.config().consumer.clone() }
    }

    /// Configures a consumer without a group: by default with [`Config::consumer`](crate::Config::consumer).
    #[must_use = "a builder does nothing by itself"]
    pub fn reader(&self) -> ReaderBuilder {
        ReaderBuilder { client: self.clone(), config: self.config().consumer.clone() }
    }
}
