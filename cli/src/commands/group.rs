//! `ailurus group`: list, describe, reset and delete consumer groups.

mod reset;

use std::collections::BTreeMap;

use ailurus::Admin;
use ailurus::admin::{GroupDescription, GroupFilter, GroupListing, GroupMember};
use clap::{Args, Subcommand, ValueEnum};

use crate::args::{Global, Json};
use crate::exit::Exit;
use crate::output::{self, Table, list, note, or_dash};
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
    /// The groups of all brokers.
    #[command(after_help = "\
Examples:
  ailurus group list --state empty,dead
  ailurus group list --type consumer --json")]
    List {
        /// Only those in one of these states, separated by commas.
        #[arg(long, value_name = "STATE", value_delimiter = ',', ignore_case = true)]
        state: Vec<State>,
        /// Only those of one of these types. Redpanda, and Kafka before 3.8, can't do this and say so.
        #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', ignore_case = true)]
        kind: Vec<Kind>,
        #[command(flatten)]
        output: Json,
    },
    /// Members of a group, what each owns, and how far each partition is. Exits with 1 if the group does not exist.
    Describe {
        /// The group.
        group: String,
        #[command(flatten)]
        output: Json,
    },
    Reset(reset::Reset),
    /// Delete a group, and what it has committed. Refused while it has members.
    Delete {
        /// The group.
        group: String,
    },
    /// Forget what a group has committed for some partitions. Refused while its members subscribe to the topic.
    DeleteOffsets {
        /// The group.
        group: String,
        /// The topic, or with :0,3 behind its name these partitions of it; may be given several times.
        #[arg(long = "topic", required = true, value_name = "TOPIC[:P,…]")]
        topics: Vec<Selection>,
    },
}

/// As brokers name them.
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

/// Which protocol a group's members speak.
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
        Action::Delete { group } => delete(admin, &group).await,
        Action::DeleteOffsets { group, topics } => delete_offsets(admin, &group, &topics).await,
    };
    settings::admin(global, act).await
}

/// A word as it is written on the command line.
fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

async fn list_groups(admin: &Admin, states: &[State], kinds: &[Kind], as_json: bool) -> anyhow::Result<Exit> {
    let filter = states.iter().fold(GroupFilter::default(), |filter, s| filter.state(word(s)));
    let filter = kinds.iter().fold(filter, |filter, k| filter.group_type(word(k)));
    let groups = admin.list_groups_where(&filter).await?;
    if as_json {
        output::json(&groups)?;
    } else {
        output::print(listing(groups))?;
    }
    Ok(Exit::Success)
}

fn listing(groups: Vec<GroupListing>) -> Table {
    let mut table = Table::new(["GROUP", "STATE", "PROTOCOL", "TYPE"]);
    for g in groups {
        table.row([g.group, or_dash(g.state), g.protocol_type, or_dash(g.group_type)]);
    }
    table
}

async fn delete(admin: &Admin, group: &str) -> anyhow::Result<Exit> {
    admin.delete_group(group).await?;
    output::print(format_args!("deleted {group}\n"))?;
    Ok(Exit::Success)
}

async fn delete_offsets(admin: &Admin, group: &str, topics: &[Selection]) -> anyhow::Result<Exit> {
    let partitions = Selection::find_all(topics, admin).await?;
    admin.delete_offsets(group, &partitions).await?;
    output::print(format_args!("deleted offsets of {group} in {} partitions\n", partitions.len()))?;
    Ok(Exit::Success)
}

async fn describe(admin: &Admin, group: &str, as_json: bool) -> anyhow::Result<Exit> {
    let described = admin.describe_group(group).await?;
    // The protocol has no error for a group that does not exist: it answers that it is dead.
    let exists = described.state != "Dead" || !described.offsets.is_empty();
    if as_json {
        output::json(&described)?;
    } else if exists {
        output::print(description(&described))?;
    }
    if !exists {
        note(format_args!("error: group {group} does not exist"));
        return Ok(Exit::Failure);
    }
    Ok(Exit::Success)
}

fn description(g: &GroupDescription) -> String {
    let lag: i64 = g.offsets.iter().filter_map(|o| o.lag).sum();
    let mut text =
        format!("group {}  type {}  state {}  coordinator {}", g.group, g.group_type, g.state, g.coordinator);
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
        let mut offsets = Table::new(["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "OWNER"]);
        for o in &g.offsets {
            offsets.row([
                o.topic.clone(),
                o.partition.to_string(),
                or_dash(o.committed),
                or_dash(o.end),
                or_dash(o.lag),
                or_dash(owner(&g.members, &o.topic, o.partition)),
            ]);
        }
        text += &format!("\n{offsets}");
    }
    text
}

fn owned(assignment: &BTreeMap<String, Vec<i32>>) -> String {
    let text = assignment.iter().map(|(topic, p)| format!("{topic}/{}", list(p))).collect::<Vec<_>>().join(" ");
    if text.is_empty() { "-".to_owned() } else { text }
}

fn owner<'a>(members: &'a [GroupMember], topic: &str, partition: i32) -> Option<&'a str> {
    let owns = |m: &&GroupMember| m.assignment.get(topic).is_some_and(|p| p.contains(&partition));
    members.iter().find(owns).map(|m| m.member_id.as_str())
}
