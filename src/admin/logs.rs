//! Log directories: disk usage of replicas.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::DescribeLogDirsRequest;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{DescribeLogDirsResponse, DescribeLogDirsResult};
use serde::Serialize;

use super::Admin;
use crate::cluster::fields::topic_name;
use crate::cluster::leaders::RetryPolicy;
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
    /// Broker id.
    pub broker: i32,
    /// Path on the broker.
    pub path: String,
    /// Reason why it can't be used, if it can't.
    pub error: Option<String>,
    /// Size of its volume, in bytes; reported by Kafka from 3.3 on, not by Redpanda.
    pub total_bytes: Option<i64>,
    /// Free space of its volume, in bytes.
    pub usable_bytes: Option<i64>,
    /// Replicas in it.
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
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Size of its segments, in bytes.
    pub bytes: i64,
    /// Number of records it is behind the high watermark.
    pub lag: i64,
    /// True if it is a copy that is being moved to this directory.
    pub future: bool,
}

impl Admin {
    /// Returns the log directories of all brokers, with the replicas of one topic in them, or with
    /// all replicas.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if a broker does not serve
    /// DescribeLogDirs; [`ErrorKind::UnknownTopic`](crate::ErrorKind::UnknownTopic); if a broker of
    /// the cluster fails, because sizes without its replicas would be wrong.
    /// [`log_dirs_by_broker`](Self::log_dirs_by_broker) returns those of the others.
    pub async fn log_dirs(&self, topic: Option<&str>) -> Result<Vec<LogDir>> {
        let limit = self.cluster().request_timeout();
        let dirs = self.dirs_by_broker(topic, limit).await?.into_values().collect::<Result<Vec<_>>>()?;
        Ok(dirs.into_iter().flatten().collect())
    }

    /// Returns the log directories of each broker, or the broker's error. Waits at most 5 seconds
    /// for a broker that does not respond.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`](crate::ErrorKind::UnknownTopic); [`ErrorKind::Connect`](crate::ErrorKind::Connect) if no
    /// broker can be reached.
    pub async fn log_dirs_by_broker(&self, topic: Option<&str>) -> Result<BTreeMap<i32, Result<Vec<LogDir>>>> {
        self.dirs_by_broker(topic, RetryPolicy::best_effort(self.cluster()).response).await
    }

    async fn dirs_by_broker(&self, topic: Option<&str>, limit: Duration) -> Result<BTreeMap<i32, Result<Vec<LogDir>>>> {
        let topics = match topic {
            None => None,
            Some(name) => {
                let partitions = self.describe_topic(name).await?.partitions.iter().map(|p| p.partition).collect();
                let requested =
                    DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(partitions);
                Some(vec![requested])
            }
        };
        let request = DescribeLogDirsRequest::default().with_topics(topics);
        let describe = |broker, at| {
            let request = request.clone();
            async move {
                let response = self.cluster().request_within(limit, &at, request).await;
                dirs(broker, response.map_err(|e| e.context(what(broker)))?)
            }
        };
        self.cluster().for_each_broker(describe).await
    }
}

fn what(broker: i32) -> String {
    format!("describing the log directories of broker {broker}")
}

fn dirs(broker: i32, response: DescribeLogDirsResponse) -> Result<Vec<LogDir>> {
    if response.error_code != 0 {
        return Err(Error::broker(response.error_code, what(broker)));
    }
    let dir = |d: DescribeLogDirsResult| LogDir {
        broker,
        path: d.log_dir.to_string(),
        error: Some(d.error_code).filter(|code| *code != 0).map(code_name),
        total_bytes: Some(d.total_bytes).filter(|n| *n >= 0),
        usable_bytes: Some(d.usable_bytes).filter(|n| *n >= 0),
        replicas: replicas(d),
    };
    Ok(response.results.into_iter().map(dir).collect())
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
