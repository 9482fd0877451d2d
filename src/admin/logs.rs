//! What replicas take on the brokers' disks.

use futures_util::future::try_join_all;
use kafka_protocol::messages::DescribeLogDirsRequest;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{DescribeLogDirsResponse, DescribeLogDirsResult};
use serde::Serialize;

use super::Admin;
use super::topics::topic_name;
use crate::error::{Error, Result, code_name};

/// A log directory of a broker.
///
/// ```
/// use ailurus::admin::LogDir;
///
/// fn bytes(dirs: &[LogDir]) -> i64 {
///     dirs.iter().flat_map(|d| &d.replicas).map(|r| r.bytes).sum()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LogDir {
    /// Whose it is.
    pub broker: i32,
    /// Where it is there.
    pub path: String,
    /// Why it can't be used, if it can't.
    pub error: Option<String>,
    /// Bytes of its volume; Kafka tells them from 3.3 on, Redpanda does not.
    pub total_bytes: Option<i64>,
    /// Bytes of it that are free.
    pub usable_bytes: Option<i64>,
    /// What is in it.
    pub replicas: Vec<ReplicaLog>,
}

/// A replica of a partition on a broker's disk.
///
/// ```
/// # fn show(r: &ailurus::admin::ReplicaLog) {
/// println!("{}/{}: {} bytes", r.topic, r.partition, r.bytes);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ReplicaLog {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Bytes of its segments.
    pub bytes: i64,
    /// How many records it is behind.
    pub lag: i64,
    /// Whether it is a copy that is being moved to this directory.
    pub future: bool,
}

impl Admin {
    /// The log directories of all brokers, with the replicas of one topic in them, or with all replicas.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if a broker does not serve DescribeLogDirs;
    /// [`ErrorKind::UnknownTopic`](crate::ErrorKind::UnknownTopic); if a broker of the cluster can't be asked, for sizes
    /// without its replicas would be wrong.
    pub async fn log_dirs(&self, topic: Option<&str>) -> Result<Vec<LogDir>> {
        let topics = match topic {
            None => None,
            Some(name) => {
                let partitions = self.describe_topic(name).await?.partitions.iter().map(|p| p.partition).collect();
                let asked = DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(partitions);
                Some(vec![asked])
            }
        };
        let request = DescribeLogDirsRequest::default().with_topics(topics);
        let cluster = self.cluster();
        let mut brokers: Vec<i32> = cluster.refresh().await?.brokers.keys().copied().collect();
        brokers.sort_unstable();
        let ask = |broker| {
            let request = request.clone();
            async move {
                let answer = cluster.request_to(broker, request, cluster.config().request_timeout).await;
                dirs(broker, answer.map_err(|e| e.context(what(broker)))?)
            }
        };
        Ok(try_join_all(brokers.into_iter().map(ask)).await?.into_iter().flatten().collect())
    }
}

fn what(broker: i32) -> String {
    format!("describing the log directories of broker {broker}")
}

fn dirs(broker: i32, answer: DescribeLogDirsResponse) -> Result<Vec<LogDir>> {
    if answer.error_code != 0 {
        return Err(Error::broker(answer.error_code, what(broker)));
    }
    let dir = |d: DescribeLogDirsResult| LogDir {
        broker,
        path: d.log_dir.to_string(),
        error: Some(d.error_code).filter(|code| *code != 0).map(code_name),
        total_bytes: Some(d.total_bytes).filter(|n| *n >= 0),
        usable_bytes: Some(d.usable_bytes).filter(|n| *n >= 0),
        replicas: replicas(d),
    };
    Ok(answer.results.into_iter().map(dir).collect())
}

fn replicas(d: DescribeLogDirsResult) -> Vec<ReplicaLog> {
    let partitions = d.topics.into_iter().flat_map(|t| t.partitions.into_iter().map(move |p| (t.name.to_string(), p)));
    let one = |(topic, p): (String, kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsPartition)| {
        ReplicaLog {
            topic,
            partition: p.partition_index,
            bytes: p.partition_size,
            lag: p.offset_lag,
            future: p.is_future_key,
        }
    };
    partitions.map(one).collect()
}
