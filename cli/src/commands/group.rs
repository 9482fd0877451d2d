//! `ailurus group`: list and describe consumer groups.

use std::collections::BTreeMap;

use ailurus::admin::{GroupDescription, GroupListing, GroupMember};
use ailurus::{Admin, Client};
use clap::{Args, Subcommand};

use crate::args::{Global, Json};
use crate::exit::Exit;
use crate::output::{self, Table, list, note, or_dash};
use crate::settings;

/// List and describe consumer groups: members, assignment, offsets, lag.
#[derive(Debug, Args)]
pub struct Group {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// All groups of all brokers.
    List {
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
}

pub async fn run(global: &Global, args: Group) -> anyhow::Result<Exit> {
    let client = Client::connect(settings::read_only(global)?).await?;
    let admin = Admin::new(&client);
    let result = match args.action {
        Action::List { output } => list_groups(&admin, output.json).await,
        Action::Describe { group, output } => describe(&admin, &group, output.json).await,
    };
    client.close().await;
    result
}

async fn list_groups(admin: &Admin, as_json: bool) -> anyhow::Result<Exit> {
    let groups = admin.list_groups().await?;
    if as_json {
        output::json(&groups)?;
    } else {
        output::print(listing(groups))?;
    }
    Ok(Exit::Success)
}

fn listing(groups: Vec<GroupListing>) -> Table {
    let mut table = Table::new(["GROUP", "STATE", "PROTOCOL"]);
    for g in groups {
        table.row([g.group, or_dash(g.state), g.protocol_type]);
    }
    table
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
    let mut text = format!("group {}  state {}  coordinator {}", g.group, g.state, g.coordinator);
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
