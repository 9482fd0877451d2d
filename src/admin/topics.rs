//! Topics: list, describe, create, grow, delete.

use std::sync::Arc;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataResponse};
use kafka_protocol::protocol::StrBytes;

use super::{Admin, NewTopic, PartitionInfo, TopicInfo};
use crate::cluster::fields::topic_name;
use crate::cluster::{TopicMeta, topic_meta};
use crate::code;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::Api;

impl Admin {
    /// Lists all topics, by name, internal ones (`__consumer_offsets`) included.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if no broker can be reached.
    pub async fn list_topics(&self) -> Result<Vec<TopicInfo>> {
        let response = self.cluster().metadata(None, false).await?;
        let mut topics: Vec<_> = response.topics.iter().filter(|t| t.error_code == 0).filter_map(info).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Describes a topic.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if it does not exist; it is not created.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicInfo> {
        let response = self.topic_metadata(name).await?;
        let found = response.topics.first().ok_or(code::UNKNOWN_TOPIC_OR_PARTITION);
        let found = found.and_then(|t| {
            if t.error_code == 0 { info(t).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION) } else { Err(t.error_code) }
        });
        found.map_err(|code| describe_error(name, code))
    }

    pub(super) async fn topic_metadata(&self, name: &str) -> Result<MetadataResponse> {
        self.cluster().metadata(Some(&[name.into()]), false).await
    }

    /// Creates a topic and waits until its partitions have leaders. `replication` `None` is the
    /// broker's default.
    ///
    /// # Errors
    /// [`ErrorKind::TopicExists`]; other errors of the broker, in its words; [`ErrorKind::Timeout`]
    /// if the leaders are not elected within the request timeout.
    pub async fn create_topic(&self, name: &str, partitions: i32, replication: Option<i16>) -> Result<()> {
        let new = NewTopic::new(name).partitions(partitions);
        self.create_topic_with(&replication.into_iter().fold(new, NewTopic::replication)).await
    }

    /// Creates a topic with configuration and replica assignment, and waits until its partitions
    /// have leaders.
    ///
    /// # Errors
    /// As [`create_topic`](Self::create_topic); [`ErrorKind::Config`] if the number of partitions
    /// contradicts the replica assignment.
    pub async fn create_topic_with(&self, new: &NewTopic) -> Result<()> {
        self.send_create_topic(new, false).await?;
        let partitions = new.count().unwrap_or(1);
        let there = |t: &TopicMeta| {
            t.partitions.len() as i64 >= i64::from(partitions) && t.partitions.iter().all(|p| p.leader.is_some())
        };
        self.wait_for(new.name(), &new.to_string(), |t| t.is_some_and(there)).await
    }

    /// Validates what [`create_topic_with`](Self::create_topic_with) would do; nothing is created.
    ///
    /// # Errors
    /// Those of [`create_topic_with`](Self::create_topic_with).
    pub async fn check_topic(&self, new: &NewTopic) -> Result<()> {
        self.send_create_topic(new, true).await
    }

    async fn send_create_topic(&self, new: &NewTopic, validate_only: bool) -> Result<()> {
        let request = CreateTopicsRequest::default()
            .with_topics(vec![new.request()?])
            .with_timeout_ms(self.timeout_ms())
            .with_validate_only(validate_only);
        let result_of = |r: &<CreateTopicsRequest as Api>::Response| {
            r.topics.first().map(|t| (t.error_code, t.error_message.clone()))
        };
        self.request_controller(request, &new.to_string(), result_of).await.map(drop)
    }

    /// Increases the number of partitions of a topic to `total`. Keys hash to a partition modulo
    /// their number: from then on a key's new records may go to another partition than its old
    /// ones, so their order holds only within each time span.
    ///
    /// # Errors
    /// Errors of the broker, in its words.
    pub async fn create_partitions(&self, name: &str, total: i32) -> Result<()> {
        let topic =
            CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(total).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(self.timeout_ms());
        let what = format!("raising topic {name:?} to {total} partitions");
        let result_of = |r: &<CreatePartitionsRequest as Api>::Response| {
            r.results.first().map(|t| (t.error_code, t.error_message.clone()))
        };
        self.request_controller(request, &what, result_of).await?;
        self.wait_for(name, &what, |t| t.is_some_and(|t| t.partitions.len() as i64 >= i64::from(total))).await
    }

    /// Deletes a topic and waits until the cluster's metadata does not list it any more.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`]; other errors of the broker, in its words.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let request =
            DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]).with_timeout_ms(self.timeout_ms());
        let what = format!("deleting topic {name:?}");
        let result_of = |r: &<DeleteTopicsRequest as Api>::Response| {
            r.responses.first().map(|t| (t.error_code, t.error_message.clone()))
        };
        self.request_controller(request, &what, result_of).await?;
        self.wait_for(name, &what, |t| t.is_none()).await
    }

    /// Sends a request to the controller, and retries it at the new one if it has moved.
    pub(super) async fn request_controller<A: Api>(
        &self,
        request: A,
        what: &str,
        result_of: impl Fn(&A::Response) -> Option<(i16, Option<StrBytes>)>,
    ) -> Result<A::Response> {
        let cluster = self.cluster();
        let mut attempts = cluster.attempts();
        loop {
            // Redpanda and KRaft brokers forward to the controller; older Kafka requires the controller itself.
            let controller = cluster.refresh_brokers().await.map_err(|e| e.context(what))?.controller;
            let error = match controller {
                Some(id) => match cluster.request_to(id, request.clone(), cluster.request_timeout()).await {
                    Ok(response) => match result_of(&response).unwrap_or((code::UNKNOWN_TOPIC_OR_PARTITION, None)) {
                        (0, _) => return Ok(response),
                        (code @ code::UNKNOWN_TOPIC_OR_PARTITION, _) => {
                            return Err(Error::from_code(code, format!("{what}: it does not exist")));
                        }
                        (code @ code::NOT_CONTROLLER, message) => broker_error(code, message, what),
                        (code, message) => return Err(broker_error(code, message, what)),
                    },
                    // The request was not sent, so it had no effect, and there may be another controller soon.
                    Err(e) if e.kind() == ErrorKind::Connect => e.context(what),
                    Err(e) => return Err(e.context(what)),
                },
                None => Error::broker(code::NOT_CONTROLLER, format_args!("{what}: the cluster has no controller")),
            };
            if !attempts.wait().await {
                return Err(error);
            }
        }
    }

    /// Waits until the metadata reflects a change.
    async fn wait_for(&self, name: &str, what: &str, done: impl Fn(Option<&TopicMeta>) -> bool) -> Result<()> {
        let mut attempts = self.cluster().attempts();
        loop {
            let response = self.topic_metadata(name).await?;
            let found =
                response.topics.first().filter(|t| t.error_code != code::UNKNOWN_TOPIC_OR_PARTITION).and_then(meta);
            if done(found.as_ref()) {
                return Ok(());
            }
            if !attempts.wait().await {
                let timeout = self.cluster().request_timeout();
                let what = format!("{what}: the broker agreed, but its metadata does not show it after {timeout:?}");
                return Err(Error::new(ErrorKind::Timeout, what));
            }
        }
    }
}

fn describe_error(name: &str, code: i16) -> Error {
    match code {
        code::UNKNOWN_TOPIC_OR_PARTITION => Error::from_code(code, format!("topic {name:?} does not exist")),
        code::LEADER_NOT_AVAILABLE => Error::broker(code, format_args!("topic {name:?} is being created")),
        code => Error::broker(code, format_args!("describing topic {name:?}")),
    }
}

/// Returns the error for a code, with the broker's own message if it has one.
pub(super) fn broker_error(code: i16, message: Option<StrBytes>, what: &str) -> Error {
    let detail = message.filter(|m| !m.is_empty()).map(|m| format!(" ({m})")).unwrap_or_default();
    Error::broker(code, format_args!("{what}{detail}"))
}

fn meta(t: &MetadataResponseTopic) -> Option<TopicMeta> {
    Some(topic_meta(Arc::from(t.name.as_ref()?.0.as_str()), t, None))
}

fn info(t: &MetadataResponseTopic) -> Option<TopicInfo> {
    let meta = meta(t)?;
    let partitions = (0..).zip(meta.partitions).map(|(partition, p)| PartitionInfo {
        partition,
        leader: p.leader,
        replicas: p.replicas,
        in_sync_replicas: p.in_sync,
    });
    Some(TopicInfo { name: meta.name.to_string(), internal: meta.internal, partitions: partitions.collect() })
}
