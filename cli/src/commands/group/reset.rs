//! `ailurus group reset`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use ailurus::admin::{GroupDescription, PlannedOffset, ResetTo};
use ailurus::{Admin, StartOffset, TopicPartition};
use anyhow::Context;
use clap::{ArgGroup, Args};
use serde_json::json;

use crate::exit::{Exit, Usage};
use crate::options::Json;
use crate::output::{self, Table, names, note, or_dash};
use crate::place::Place;
use crate::selection::Selection;

/// Set the committed offsets of a group. Refused while the group has members.
///
/// Dry run without --yes: prints what would be done. An offset outside the log becomes the nearest end of the log.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("place").required(true).args(["to", "shift", "file"])),
    after_help = "\
To save the offsets before, and to restore them:
  ailurus group describe billing --json |
      jq -r '.offsets[] | select(.committed) | [.topic, .partition, .committed] | @csv' > saved.csv
  ailurus group reset billing --file saved.csv --yes

Exit codes:
  0    done, or dry run
  2    an option, a setting or a line of the file is wrong
  3    a topic or partition does not exist
  5    no broker is reachable, or a partition has no leader: nothing was changed
  6    the group has members, or a broker refused

Examples:
  ailurus group reset billing --to earliest                   # all that it has committed; dry run
  ailurus group reset billing --to 2026-01-31T12:00:00Z --topic orders --yes
  ailurus group reset billing --to 1700 --topic orders:2 --yes
  ailurus group reset billing --shift -10 --yes               # the last ten of each partition again
  echo orders,2,1700 | ailurus group reset billing --file - --yes"
)]
pub struct Reset {
    /// Name of the group; one that does not exist is created.
    group: String,
    /// New position: earliest, latest, an offset (of every partition chosen), or the time of the first record: so long ago
    /// (-5m, 2h), a date, a time such as 2026-01-31T12:00:00Z, or milliseconds since 1970 where no partition has such an
    /// offset.
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    to: Option<Place>,
    /// Offsets to move forward from the committed ones; back if negative.
    #[arg(long, value_name = "RECORDS", allow_negative_numbers = true)]
    shift: Option<i64>,
    /// File with a line TOPIC,PARTITION,OFFSET for each partition; - is stdin.
    #[arg(long, value_name = "PATH", conflicts_with = "topics")]
    file: Option<PathBuf>,
    /// Topic, or TOPIC:0,3 for these of its partitions; may be given several times [default: all partitions with a
    /// committed offset].
    #[arg(long = "topic", value_name = "TOPIC[:P,…]")]
    topics: Vec<Selection>,
    /// Do it; without this option a dry run prints what would be done.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Json,
}

pub async fn run(admin: &Admin, args: Reset) -> anyhow::Result<Exit> {
    let listed = args.file.as_ref().map(read).transpose()?; // before any request
    let group = admin.describe_group(&args.group).await?;
    let plan = plan(admin, &args, &group, listed).await.map_err(|e| match e.downcast_ref::<ailurus::Error>() {
        Some(cause) if cause.is_retriable() => {
            e.context("nothing was changed; other partitions can be chosen with --topic")
        }
        _ => e,
    })?;
    if args.yes {
        admin.reset_offsets(&args.group, &plan).await?;
    }
    print(&args, &plan)?;
    if !args.yes {
        note(format_args!("nothing was changed; --yes does it"));
        super::note_members(&group);
    }
    Ok(Exit::Success)
}

async fn plan(
    admin: &Admin,
    args: &Reset,
    group: &GroupDescription,
    listed: Option<BTreeMap<TopicPartition, i64>>,
) -> anyhow::Result<Vec<PlannedOffset>> {
    Ok(match listed {
        Some(offsets) => admin.plan_offsets(group, &offsets).await?,
        None => {
            let partitions = match args.topics.as_slice() {
                [] => committed(group)?,
                chosen => Selection::find_all(chosen, admin).await?,
            };
            let to = match (args.shift, args.to) {
                (Some(by), _) => ResetTo::Shift(by),
                (None, Some(place)) => ResetTo::At(resolve(admin, &partitions, place).await?),
                (None, None) => return Err(Usage("one of --to, --shift and --file is needed".into()).into()),
            };
            admin.plan_reset(group, &partitions, to).await?
        }
    })
}

/// Returns the new position; a number that no partition reaches may be a time.
async fn resolve(admin: &Admin, partitions: &[TopicPartition], place: Place) -> anyhow::Result<StartOffset> {
    if !place.is_ambiguous() {
        return Ok(place.0);
    }
    let ends = admin.list_offsets_each(partitions, StartOffset::Latest).await?;
    Ok(place.resolve(ends.into_values().collect::<ailurus::Result<Vec<_>>>()?.into_iter()))
}

/// Returns the partitions with a committed offset whose topics exist.
fn committed(group: &GroupDescription) -> anyhow::Result<Vec<TopicPartition>> {
    let found = group.offsets.iter().filter(|o| o.committed.is_some() && o.exists);
    let found: Vec<_> = found.map(|o| TopicPartition::new(o.topic.as_str(), o.partition)).collect();
    if found.is_empty() {
        return Err(Usage(format!("group {} has committed nothing: name topics with --topic", group.group)).into());
    }
    Ok(found)
}

fn print(args: &Reset, plan: &[PlannedOffset]) -> std::io::Result<()> {
    if args.output.json {
        return output::json(&json!({"group": args.group, "done": args.yes, "offsets": plan}));
    }
    let mut table = Table::new(["TOPIC", "PARTITION", "COMMITTED", "NEW", "CHANGE", "LAG"]);
    for p in plan {
        let change = p.from.map(|from| format!("{:+}", p.to - from));
        let lag = (p.end - p.to).to_string();
        table.row([p.topic.clone(), p.partition.to_string(), or_dash(p.from), p.to.to_string(), or_dash(change), lag]);
    }
    output::print(table)?;
    let cut = plan.iter().filter(|p| p.cut);
    let cut: Vec<_> = cut.map(|p| format!("{}/{} (from {} to {})", p.topic, p.partition, p.first, p.end)).collect();
    if !cut.is_empty() {
        note(format_args!("the offset is outside the log, and becomes its nearest end, in {}", names(cut)));
    }
    Ok(())
}

fn read(path: &PathBuf) -> anyhow::Result<BTreeMap<TopicPartition, i64>> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).context("reading offsets from stdin")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("reading offsets from {}", path.display()))?;
    }
    Ok(parse(&text).map_err(|why| Usage(format!("{}: {why}", path.display())))?)
}

fn parse(text: &str) -> Result<BTreeMap<TopicPartition, i64>, String> {
    let mut offsets = BTreeMap::new();
    for (n, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let mut parts = line.split(',').map(|p| p.trim().trim_matches('"'));
        let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok()).filter(|n| *n >= 0);
        let (topic, partition, offset) = (parts.next(), number(parts.next()), number(parts.next()));
        let partition = partition.and_then(|p| i32::try_from(p).ok());
        let whole = topic.filter(|t| !t.is_empty()).zip(partition).zip(offset).filter(|_| parts.next().is_none());
        let Some(((topic, partition), offset)) = whole else {
            return Err(format!("line {n} is {line:?}: allowed is TOPIC,PARTITION,OFFSET"));
        };
        if offsets.insert(TopicPartition::new(topic, partition), offset).is_some() {
            return Err(format!("line {n} is {line:?}: that partition is in it twice"));
        }
    }
    if offsets.is_empty() { Err("it has no line TOPIC,PARTITION,OFFSET".to_owned()) } else { Ok(offsets) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_line_is_topic_partition_and_offset() {
        let offsets = parse("orders,0,17\n\n\"orders\", 1 ,0\r\n").unwrap();
        let at = |p| offsets[&TopicPartition::new("orders", p)];
        assert_eq!((offsets.len(), at(0), at(1)), (2, 17, 0));
        for (bad, says) in [
            ("", "no line"),
            ("orders,0", "line 1"),
            ("orders,0,17\norders,x,1", "line 2 is \"orders,x,1\""),
            ("orders,0,-1", "line 1"),
            ("g,orders,0,1", "line 1"),
            (",0,1", "line 1"),
            ("orders,0,1\norders,0,2", "twice"),
        ] {
            assert!(parse(bad).is_err_and(|e| e.contains(says)), "{bad:?}");
        }
    }
}
