//! Looks at a cluster: what `ailurus serve` shows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ailurus::admin::{GroupDescription, GroupFilter, GroupOffset, GroupState, MemberDescription, TopicInfo};
use ailurus::health::{Activity, Status, TopicHealth};
use ailurus::{Admin, Client, ErrorKind, Health};
use ailurus_serve::dead_letters::count_records;
use ailurus_serve::text::{for_operators, health_for_operators};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::report::{DeadLetters, Group, Partition, Watched};
use crate::output::names;

/// Maximum time for topics, groups and dead letters at one look; behind it, those of the look before are shown.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time for one group.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of groups described at the same time.
const CONCURRENCY: usize = 8;

/// Group, topic and partition.
type Place = (String, String, i32);

/// Looks at a cluster again and again, and finds the partitions that stand still meanwhile.
pub struct Watcher {
    client: Client,
    admin: Admin,
    /// Committed offset of each partition with a lag, and since when it has been that.
    waiting: HashMap<Place, (i64, Instant)>,
}

/// Topics, groups and dead letters at one look, and why they are not complete.
struct Details {
    topics: Vec<TopicInfo>,
    groups: Vec<GroupDescription>,
    dead_letters: Vec<DeadLetters>,
    problems: Vec<String>,
}

impl Watcher {
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), admin: Admin::new(client), waiting: HashMap::new() }
    }

    /// Fails if the brokers refuse the login.
    pub async fn check_login(&self) -> ailurus::Result<()> {
        match timeout(self.client.config().health_timeout, self.admin.describe_cluster()).await {
            Ok(Err(e)) if e.kind() == ErrorKind::Authentication => Err(e),
            _ => Ok(()),
        }
    }

    /// Returns the state of the cluster; topics, groups and dead letters that can't be read now are those of the look before.
    pub async fn look(&mut self, before: Option<&Watched>) -> Watched {
        let health = Health::check(&self.client).await;
        let mut watched = Watched { health, groups: Vec::new(), dead_letters: Vec::new(), at: Instant::now() };
        let details = match watched.health.is_reachable() {
            true => timeout(LOOK_TIMEOUT, self.details()).await.unwrap_or_else(|_| {
                Err(format!("topics and groups could not be read within {LOOK_TIMEOUT:?}: those shown are old"))
            }),
            false => Err("topics and groups can't be read: those shown are old".to_owned()),
        };
        match details {
            Ok(details) => self.add(&mut watched, details),
            Err(problem) => {
                if let Some(before) = before {
                    watched.health.topics.clone_from(&before.health.topics);
                    watched.groups.clone_from(&before.groups);
                    watched.dead_letters.clone_from(&before.dead_letters);
                }
                watched.add(Status::Degraded, problem);
            }
        }
        watched.health = health_for_operators(watched.health);
        watched
    }

    async fn details(&self) -> Result<Details, String> {
        let topics = self.admin.list_topics().await.map_err(|e| format!("{e:#}"))?;
        let mut problems = Vec::new();
        let groups = self.groups(&mut problems).await?;
        let dead_letters = self.dead_letters(&topics).await;
        Ok(Details { topics, groups, dead_letters, problems })
    }

    /// Returns the groups of consumers, by name.
    async fn groups(&self, problems: &mut Vec<String>) -> Result<Vec<GroupDescription>, String> {
        let lists = self.admin.list_groups_by_broker(&GroupFilter::default()).await.map_err(|e| format!("{e:#}"))?;
        let (mut describing, slots) = (JoinSet::new(), Arc::new(Semaphore::new(CONCURRENCY)));
        for list in lists.into_values() {
            let listed = list.unwrap_or_else(|e| {
                problems.push(format!("groups are missing: {e:#}"));
                Vec::new()
            });
            // A group that only commits offsets has no protocol type; those of Kafka Connect have another.
            for group in listed.into_iter().filter(|g| matches!(&*g.protocol_type, "consumer" | "")) {
                let (admin, slots) = (self.admin.clone(), Arc::clone(&slots));
                describing.spawn(async move {
                    let _slot = slots.acquire().await;
                    match timeout(DESCRIBE_TIMEOUT, admin.describe_group(&group.group)).await {
                        Ok(described) => described.map_err(|e| format!("group {:?} is missing: {e:#}", group.group)),
                        Err(_) => {
                            Err(format!("group {:?} is missing: no response within {DESCRIBE_TIMEOUT:?}", group.group))
                        }
                    }
                });
            }
        }
        let mut groups = Vec::new();
        while let Some(described) = describing.join_next().await {
            match described.map_err(|e| e.to_string())? {
                // A group that was deleted since it was listed.
                Ok(group) if group.state == GroupState::Dead => {}
                Ok(group) => groups.push(group),
                Err(problem) => problems.push(problem),
            }
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        groups.dedup_by(|a, b| a.group == b.group); // a group that moved to another broker meanwhile
        Ok(groups)
    }

    /// Returns the number of records in each topic of dead letters, by name.
    async fn dead_letters(&self, topics: &[TopicInfo]) -> Vec<DeadLetters> {
        let suffix = &self.client.config().processor.dead_letter_suffix;
        let counted = count_records(&self.admin, topics, suffix).await;
        counted.into_iter().map(|(topic, records)| DeadLetters { topic, records }).collect()
    }

    fn add(&mut self, watched: &mut Watched, details: Details) {
        let known: Vec<_> = watched.health.topics.iter().map(|t| t.name.clone()).collect();
        let others = details.topics.iter().filter(|t| !t.internal && !known.contains(&t.name));
        let others: Vec<_> = others.map(TopicHealth::from).collect();
        let offline: Vec<_> = others.iter().filter(|t| t.without_leader > 0).map(|t| t.name.clone()).collect();
        watched.health.topics.extend(others);
        watched.health.topics.sort_by(|a, b| a.name.cmp(&b.name));
        if !offline.is_empty() {
            let problem = format!("partitions without a leader, which no group reads: {}", names(offline));
            watched.add(Status::Degraded, problem);
        }
        details.problems.into_iter().for_each(|problem| watched.add(Status::Degraded, problem));
        watched.dead_letters = details.dead_letters;
        let before = std::mem::take(&mut self.waiting);
        watched.groups = details.groups.into_iter().map(|g| self.group(&before, g, watched.at)).collect();
        watched.add_stalled();
    }

    fn group(&mut self, before: &HashMap<Place, (i64, Instant)>, g: GroupDescription, now: Instant) -> Group {
        let owners = owners(&g.members);
        let partition = |o: GroupOffset| {
            let member = owners.get(&(o.topic.as_str(), o.partition)).cloned();
            let quiet = o.committed.filter(|_| o.lag.is_some_and(|lag| lag > 0)).map(|committed| {
                let place = (g.group.clone(), o.topic.clone(), o.partition);
                let same = before.get(&place).filter(|(offset, _)| *offset == committed);
                let since = same.map_or(now, |(_, since)| *since);
                self.waiting.insert(place, (committed, since));
                now - since
            });
            let stall_timeout = self.client.config().processor.stall_timeout;
            let activity = match quiet {
                Some(quiet) if quiet >= stall_timeout && member.is_some() => Activity::Stalled,
                Some(_) if member.is_some() => Activity::Busy,
                _ => Activity::Idle,
            };
            Partition {
                topic: o.topic,
                partition: o.partition,
                activity,
                quiet_for: quiet,
                committed: o.committed,
                end: o.end,
                lag: o.lag,
                member,
                error: o.error.as_deref().map(for_operators),
            }
        };
        let partitions: Vec<_> = g.offsets.into_iter().filter(|o| o.exists).map(partition).collect();
        Group {
            group: g.group.clone(),
            state: g.state.to_string(),
            protocol: g.group_type.to_string(),
            members: g.members.len(),
            activity: partitions.iter().map(|p| p.activity).max().unwrap_or_default(),
            lag: partitions.iter().filter_map(|p| p.lag).sum(),
            partitions,
        }
    }
}

/// Returns client id and host of the member that has each partition.
fn owners(members: &[MemberDescription]) -> HashMap<(&str, i32), String> {
    let mut owners = HashMap::new();
    for m in members {
        let name = format!("{} on {}", m.client_id, m.host);
        for (topic, partitions) in &m.assignment {
            owners.extend(partitions.iter().map(|p| ((topic.as_str(), *p), name.clone())));
        }
    }
    owners
}
