//! The state of a cluster at one look, and how it is shown.

use std::time::Duration;

use ailurus::Health;
use ailurus::health::{Activity, Status};
use ailurus_serve::metrics::Gauge;
use ailurus_serve::page::{self, Report, count};
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::output::or_dash;

/// A cluster, its groups and its dead letters.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watched {
    #[serde(flatten)]
    pub health: Health,
    pub groups: Vec<Group>,
    pub dead_letters: Vec<DeadLetters>,
    #[serde(skip)]
    pub at: Instant,
}

/// A group of the cluster.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub group: String,
    pub state: String,
    pub protocol: String,
    pub members: usize,
    pub activity: Activity,
    /// Sum of the partitions' lags, as far as they are known.
    pub lag: i64,
    pub partitions: Vec<Partition>,
}

/// A partition of a group.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    pub topic: String,
    pub partition: i32,
    pub activity: Activity,
    /// Time for which records have waited and nothing was committed.
    #[serde(rename = "quietMs", serialize_with = "millis")]
    pub quiet_for: Option<Duration>,
    pub committed: Option<i64>,
    pub end: Option<i64>,
    pub lag: Option<i64>,
    /// Client id and host of the member that has it.
    pub member: Option<String>,
    /// Reason why the end is not known.
    pub error: Option<String>,
}

fn millis<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
}

/// A topic of dead letters.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetters {
    pub topic: String,
    /// Number of records in its log, where all of its leaders responded.
    pub records: Option<u64>,
}

/// Maximum number of stalled partitions of a group that are named.
const MAX_NAMED: usize = 20;

impl Watched {
    /// Adds the stalled partitions to the problems.
    pub fn add_stalled(&mut self) {
        for (group, problems) in self.stalled() {
            let more = problems.len().saturating_sub(MAX_NAMED);
            problems.into_iter().take(MAX_NAMED).for_each(|problem| self.add(Status::Unhealthy, problem));
            if more > 0 {
                self.add(Status::Unhealthy, format!("{more} more partitions of group {group:?} are stalled"));
            }
        }
    }

    /// Returns the problem of each stalled partition, by group.
    fn stalled(&self) -> Vec<(String, Vec<String>)> {
        let problem = |g: &Group, p: &Partition| {
            let records = match p.lag {
                Some(1) => "1 record waits".to_owned(),
                lag => format!("{} records wait", or_dash(lag)),
            };
            let quiet = page::duration(p.quiet_for.unwrap_or_default());
            let member = or_dash(p.member.as_deref());
            let (topic, partition, group) = (&p.topic, p.partition, &g.group);
            let what = format!("{records}, and its member ({member}) has committed nothing for {quiet}");
            format!("{topic}/{partition} of group {group:?} is stalled: {what}")
        };
        let of_group = |g: &Group| {
            let stalled = g.partitions.iter().filter(|p| p.activity == Activity::Stalled);
            (g.group.clone(), stalled.map(|p| problem(g, p)).collect())
        };
        self.groups.iter().map(of_group).collect()
    }

    /// Adds a problem.
    pub fn add(&mut self, status: Status, problem: String) {
        self.health.status = self.health.status.max(status);
        self.health.problems.push(problem);
    }

    /// Returns the gauges of groups and dead letters.
    pub fn gauges(&self) -> Vec<Gauge> {
        let mut gauges = Vec::new();
        for g in &self.groups {
            let labels = vec![("group", g.group.clone()), ("state", g.state.clone())];
            gauges.push(gauge("ailurus_group_members", "Members of a group", labels, g.members as f64));
            for p in &g.partitions {
                for (name, value) in [
                    ("ailurus_consumer_committed_offset", p.committed),
                    ("ailurus_consumer_end_offset", p.end),
                    ("ailurus_consumer_lag_records", p.lag),
                ] {
                    let Some(value) = value else { continue };
                    let partition = ("partition", p.partition.to_string());
                    let labels = vec![("group", g.group.clone()), ("topic", p.topic.clone()), partition];
                    gauges.push(gauge(name, "", labels, value as f64)); // the library's metrics have these names
                }
            }
        }
        for d in &self.dead_letters {
            let Some(records) = d.records else { continue };
            let labels = vec![("topic", d.topic.clone())];
            gauges.push(gauge("ailurus_dead_letter_records", "Records in a dead-letter topic", labels, records as f64));
        }
        gauges
    }
}

fn gauge(name: &'static str, help: &'static str, labels: Vec<(&'static str, String)>, value: f64) -> Gauge {
    Gauge { name, help, labels, value }
}

impl Report for Watched {
    fn health(&self) -> &Health {
        &self.health
    }

    fn groups(&self) -> Vec<page::Group<'_>> {
        self.groups.iter().map(shown_group).collect()
    }

    fn no_groups(&self) -> &'static str {
        "The cluster has no group."
    }

    fn dead_letters(&self) -> Option<Vec<(&str, Option<u64>)>> {
        Some(self.dead_letters.iter().map(|d| (d.topic.as_str(), d.records)).collect())
    }
}

fn shown_group(g: &Group) -> page::Group<'_> {
    page::Group {
        name: &g.group,
        activity: g.activity,
        facts: vec![
            ("State", g.state.clone()),
            ("Protocol", g.protocol.clone()),
            ("Members", g.members.to_string()),
            ("Lag", count(g.lag)),
        ],
        columns: &["Lag", "Committed", "End"],
        partitions: g.partitions.iter().map(shown_partition).collect(),
        no_partitions: "It has committed nothing, and no partition is assigned.".to_owned(),
    }
}

fn shown_partition(p: &Partition) -> page::Partition<'_> {
    page::Partition {
        topic: &p.topic,
        partition: p.partition,
        activity: p.activity,
        stalled: p.quiet_for.unwrap_or_default(),
        lag: p.lag,
        remark: p.error.as_deref().or(p.member.as_deref()),
        cells: [p.lag, p.committed, p.end].map(|n| or_dash(n.map(count))).into(),
    }
}
