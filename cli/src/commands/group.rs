//! `ailurus group`: list, describe, reset and delete consumer groups.

mod reset;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ailurus::admin::{GroupDescription, GroupFilter, GroupListing, GroupOffset, GroupState, MemberDescription};
use ailurus::{Admin, ErrorKind, TopicPartition};
use clap::{Args, Subcommand, ValueEnum};

use crate::exit::Exit;
use crate::options::{Global, Json};
use crate::output::{self, Table, note, or_dash, ranges};
use crate::selection::Selection;
use crate::settings;

/// List, describe, reset and delete consumer groups: members, assignment, offsets, lag.
#[derive(Debug, Args)]
pub struct Group {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the groups of all brokers with their state, group protocol and kind of members (consumer, connect).
    ///
    /// Exits with 1 if a broker does not respond; the groups of the others are listed.
    #[command(after_help = "\
Examples:
  ailurus group list --state empty,dead
  ailurus group list --protocol consumer --json")]
    List {
        /// Only groups in one of these states, separated by commas.
        #[arg(long, value_name = "STATE", value_delimiter = ',', ignore_case = true)]
        state: Vec<State>,
        /// Only groups of one of these protocols, as in REDPANDA_GROUP_PROTOCOL; --type is the same. Redpanda, and Kafka
        /// before 3.8, do not support it.
        #[arg(long = "protocol", alias = "type", value_name = "PROTOCOL", value_delimiter = ',', ignore_case = true)]
        kind: Vec<Kind>,
        #[command(flatten)]
        output: Json,
    },
    /// Describe a group: its members and their assignment, and committed offset, end and lag of each partition.
    ///
    /// The end of a partition without a leader is -, with the reason on stderr. Where nothing is committed, LAG is the whole
    /// log, or - with REDPANDA_AUTO_OFFSET_RESET other than earliest.
    ///
    /// STABLE is the last stable offset, where a transaction is open: readers of committed records stop there, and LAG counts
    /// up to it with REDPANDA_ISOLATION_LEVEL=read_committed. A transaction that is open for longer than REDPANDA_STALL_TIMEOUT
    /// is named on stderr.
    ///
    /// Exits with 3 if the group does not exist, and with 1 if
    /// an end is not known.
    Describe {
        /// Name of the group.
        group: String,
        #[command(flatten)]
        output: Json,
    },
    Reset(reset::Reset),
    /// Delete a group and its committed offsets. Refused while it has members.
    ///
    /// Dry run without --yes: prints what would be done.
    Delete {
        /// Name of the group.
        group: String,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
    },
    /// Delete a group's committed offsets of some partitions. Refused while its members subscribe to the topic.
    ///
    /// Dry run without --yes: prints what would be done.
    DeleteOffsets {
        /// Name of the group.
        group: String,
        /// Topic, or TOPIC:0,3 for these of its partitions; may be given several times.
        #[arg(long = "topic", required = true, value_name = "TOPIC[:P,…]")]
        topics: Vec<Selection>,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
    },
}

/// States of a group, as brokers name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum State {
    Empty,
    Stable,
    PreparingRebalance,
    CompletingRebalance,
    Assigning,
    Reconciling,
    Dead,
}

/// Group protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Classic,
    Consumer,
}

pub async fn run(global: &Global, args: Group) -> anyhow::Result<Exit> {
    let act = async |admin: &Admin| match args.action {
        Action::List { state, kind, output } => list_groups(admin, &state, &kind, output.json).await,
        Action::Describe { group, output } => describe(admin, &group, output.json).await,
        Action::Reset(args) => reset::run(admin, args).await,
        Action::Delete { group, yes } => delete(admin, &group, yes).await,
        Action::DeleteOffsets { group, topics, yes } => delete_offsets(admin, &group, &topics, yes).await,
    };
    settings::admin(global, act).await
}

/// Returns the value's name on the command line.
fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

async fn list_groups(admin: &Admin, states: &[State], kinds: &[Kind], as_json: bool) -> anyhow::Result<Exit> {
    let filter = states.iter().fold(GroupFilter::default(), |filter, s| filter.state(word(s)));
    let filter = kinds.iter().fold(filter, |filter, k| filter.group_type(word(k)));
    let (mut groups, mut failed) = (Vec::new(), Vec::new());
    for (broker, outcome) in admin.list_groups_by_broker(&filter).await? {
        match outcome {
            Ok(of_broker) => groups.extend(of_broker),
            // All brokers of the cluster refuse it.
            Err(e) if e.kind() == ErrorKind::Unsupported => return Err(e.into()),
            Err(e) => failed.push((broker, e)),
        }
    }
    groups.sort_by(|a, b| a.group.cmp(&b.group));
    groups.dedup_by(|a, b| a.group == b.group); // one that moved while it was listed
    if as_json {
        output::json(&groups)?;
    } else {
        output::print(listing(groups))?;
    }
    let failed: Vec<_> = failed.into_iter().map(|(broker, e)| (broker, format!("{e:#}"))).collect();
    Ok(if output::note_missing("groups are missing", &failed) { Exit::Failure } else { Exit::Success })
}

fn listing(groups: Vec<GroupListing>) -> Table {
    let mut table = Table::new(["GROUP", "STATE", "PROTOCOL", "KIND"]);
    for g in groups {
        table.row([g.group, or_dash(g.state), or_dash(g.group_type), g.protocol_type]);
    }
    table
}

async fn delete(admin: &Admin, group: &str, yes: bool) -> anyhow::Result<Exit> {
    if yes {
        admin.delete_group(group).await?;
        output::print(format_args!("deleted {group}\n"))?;
        return Ok(Exit::Success);
    }
    let described = admin.describe_group(group).await?;
    if !exists(&described) {
        return not_there(group);
    }
    let committed: Vec<_> = described.offsets.iter().filter(|o| o.committed.is_some()).collect();
    let topics: BTreeSet<_> = committed.iter().map(|o| o.topic.as_str()).collect();
    let of = if topics.is_empty() { String::new() } else { format!(" of {}", output::names(&topics)) };
    let (state, count) = (&described.state, committed.len());
    output::print(format_args!(
        "would delete group {group}, which is {state}, and its offsets in {count} partitions{of}\n"
    ))?;
    note(format_args!("nothing was deleted; --yes does it, for good"));
    note_members(&described);
    Ok(Exit::Success)
}

async fn delete_offsets(admin: &Admin, group: &str, topics: &[Selection], yes: bool) -> anyhow::Result<Exit> {
    let partitions = Selection::find_all(topics, admin).await?;
    if yes {
        admin.delete_offsets(group, &partitions).await?;
        output::print(format_args!("deleted offsets of {group} in {} partitions\n", partitions.len()))?;
        return Ok(Exit::Success);
    }
    let described = admin.describe_group(group).await?;
    if !exists(&described) {
        return not_there(group);
    }
    let chosen: BTreeSet<_> = partitions.iter().map(|p| (&*p.topic, p.partition)).collect();
    let mut table = Table::new(["TOPIC", "PARTITION", "COMMITTED"]);
    for o in described.offsets.iter().filter(|o| chosen.contains(&(o.topic.as_str(), o.partition))) {
        if let Some(committed) = o.committed {
            table.row([o.topic.clone(), o.partition.to_string(), committed.to_string()]);
        }
    }
    output::print(table)?;
    note(format_args!("nothing was deleted; --yes deletes these offsets, for good"));
    note_members(&described);
    Ok(Exit::Success)
}

fn not_there(group: &str) -> anyhow::Result<Exit> {
    note(format_args!("error: group {group} does not exist"));
    Ok(Exit::NotFound)
}

/// Prints that a change to the group is refused while it has members.
fn note_members(group: &GroupDescription) {
    if !group.members.is_empty() {
        let count = group.members.len();
        note(format_args!("group {} has members ({count}): --yes is refused until they have stopped", group.group));
    }
}

/// Returns whether the group exists: the protocol reports one that does not as dead.
fn exists(group: &GroupDescription) -> bool {
    group.state != GroupState::Dead || !group.offsets.is_empty()
}

async fn describe(admin: &Admin, group: &str, as_json: bool) -> anyhow::Result<Exit> {
    let described = admin.describe_group(group).await?;
    let exists = exists(&described);
    if as_json {
        output::json(&described)?;
    } else if exists {
        output::print(description(&described))?;
    }
    if !exists {
        return not_there(group);
    }
    let is_unknown = note_unknown_ends(&described.offsets);
    note_holding(admin, &described.offsets).await;
    Ok(if is_unknown { Exit::Failure } else { Exit::Success })
}

/// Returns whether readers of committed records stop before the end.
fn is_held(o: &GroupOffset) -> bool {
    o.last_stable.zip(o.end).is_some_and(|(stable, end)| stable < end)
}

/// Prints which transactions hold last stable offsets back for longer than the stall timeout. Those that are not known are
/// left out: the offsets are printed.
async fn note_holding(admin: &Admin, offsets: &[GroupOffset]) {
    let held = offsets.iter().filter(|o| is_held(o)).map(|o| TopicPartition::new(o.topic.as_str(), o.partition));
    let held: Vec<_> = held.collect();
    if held.is_empty() {
        return;
    }
    let limit = admin.config().processor.stall_timeout;
    let found = admin.find_holding_transactions(&held).await.unwrap_or_default();
    let holding = found.into_iter().filter_map(|(p, outcome)| Some((p, outcome.ok().flatten()?)));
    let long = holding.filter(|(_, t)| t.age() >= limit);
    let lines: Vec<_> =
        long.map(|(p, t)| (p.clone(), format!("{p} up to {}: {t}", t.transaction.start_offset))).collect();
    output::note_missing("readers of committed records stop", &lines);
}

/// Prints which ends are not known, and why; returns whether there is one. A deleted topic has no end.
fn note_unknown_ends(offsets: &[GroupOffset]) -> bool {
    let unknown = offsets.iter().filter(|o| o.exists);
    let place = |o: &GroupOffset| format!("{}/{}", o.topic, o.partition);
    let unknown: Vec<_> = unknown.filter_map(|o| Some((place(o), o.error.as_deref()?))).collect();
    output::note_missing("an end is not known", &unknown)
}

/// Returns the lag of all partitions, and how many of them it leaves out or counts from the beginning of their log.
fn total_lag(offsets: &[GroupOffset]) -> String {
    let there: Vec<_> = offsets.iter().filter(|o| o.exists).collect();
    let unknown = there.iter().filter(|o| o.lag.is_none()).count();
    let untouched = there.iter().filter(|o| o.lag.is_some() && o.committed.is_none()).count();
    let lag: i64 = there.iter().filter_map(|o| o.lag).sum();
    let mut text = if unknown == there.len() { "-".to_owned() } else { lag.to_string() };
    let of = |n: usize| format!("{n} of {} partitions", there.len());
    if unknown > 0 && unknown < there.len() {
        text += &format!(" and that of {}, which is not known", of(unknown));
    }
    if untouched > 0 {
        text += &format!(" (nothing is committed in {}: all of their records count)", of(untouched));
    }
    text
}

fn description(g: &GroupDescription) -> String {
    let lag = total_lag(&g.offsets);
    let mut text =
        format!("group {}  protocol {}  state {}  coordinator {}", g.group, g.group_type, g.state, g.coordinator);
    if !g.assignor.is_empty() {
        text += &format!("  assignor {}", g.assignor);
    }
    text += &format!("  members {}  lag {lag}\n", g.members.len());
    if !g.members.is_empty() {
        let mut members = Table::new(["MEMBER", "CLIENT", "HOST", "PARTITIONS"]);
        for m in &g.members {
            members.row([m.member_id.clone(), m.client_id.clone(), m.host.clone(), owned(&m.assignment)]);
        }
        text += &format!("\n{members}");
    }
    if !g.offsets.is_empty() {
        let owners = owners(&g.members);
        let owner = |o: &GroupOffset| or_dash(owners.get(&(o.topic.as_str(), o.partition)));
        let place = |o: &GroupOffset| [o.topic.clone(), o.partition.to_string(), or_dash(o.committed)];
        let offsets = if g.offsets.iter().any(is_held) {
            let mut table = Table::new(["TOPIC", "PARTITION", "COMMITTED", "STABLE", "END", "LAG", "OWNER"]);
            for o in &g.offsets {
                let [topic, partition, committed] = place(o);
                let stable = or_dash(o.last_stable);
                table.row([topic, partition, committed, stable, or_dash(o.end), or_dash(o.lag), owner(o)]);
            }
            table
        } else {
            let mut table = Table::new(["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "OWNER"]);
            for o in &g.offsets {
                let [topic, partition, committed] = place(o);
                table.row([topic, partition, committed, or_dash(o.end), or_dash(o.lag), owner(o)]);
            }
            table
        };
        text += &format!("\n{offsets}");
    }
    text
}

fn owned(assignment: &BTreeMap<String, Vec<i32>>) -> String {
    let text = assignment.iter().map(|(topic, p)| format!("{topic}/{}", ranges(p))).collect::<Vec<_>>().join(" ");
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Returns the member that has each partition.
fn owners(members: &[MemberDescription]) -> HashMap<(&str, i32), &str> {
    let mut owners = HashMap::new();
    for m in members {
        for (topic, partitions) in &m.assignment {
            owners.extend(partitions.iter().map(|p| ((topic.as_str(), *p), m.member_id.as_str())));
        }
    }
    owners
}
