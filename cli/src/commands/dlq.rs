//! `ailurus dlq`: list, show, edit, replay and discard dead letters.

mod discard;
mod edit;
mod filter;
mod list;
mod replay;
mod show;

use std::str::FromStr;

use ailurus::{Acks, Client};
use ailurus_serve::dead_letters::{DEFAULT_MAX_REPLAYS, Filter, Limits, Log, Rate};
use clap::{Args, Subcommand};

use crate::exit::{Exit, Usage};
use crate::options::{Global, Json};
use crate::output;
use crate::settings;
use crate::signals::Shutdown;
use edit::EditArgs;
use filter::FilterArgs;

/// List and show dead letters, send their records again, or discard them.
///
/// A dead letter is a record that its group could not handle. It is in the dead-letter topic, whose name is that of the
/// record's topic with .dlq behind it, and has the error in its headers.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Dlq {
    #[command(subcommand)]
    action: Box<Action>,
    /// Suffix of the names of dead-letter topics [default: REDPANDA_DEAD_LETTER_SUFFIX, else .dlq].
    #[arg(long, global = true, value_name = "TEXT")]
    suffix: Option<String>,
}

const AFTER_HELP: &str = "\
replay and discard are dry runs without --yes: they print what would be done. Dead letters that were
replayed or discarded are marked in the dead-letter topic itself, by records without key and value:
they are neither replayed again nor counted as open. One command works on a topic at a time: the
only member of the group TOPIC.replay.

Exit codes:
  0    done, or dry run
  1    a dead letter was refused, or a partition could not be read; the others were handled
  2    an option or a setting is wrong
  3    the topic, the partition of --partition or, with --at, the dead letter does not exist
  5    a broker could not be reached, or a record could not be written in time; what was replayed
       before that is marked
  6    another replay or discard runs on the topic, or a broker refused
  130  a signal came before the end; what was replayed before that is marked

Examples:
  ailurus dlq list
  ailurus dlq show orders.dlq --last 3
  ailurus dlq show --at orders.dlq/0@17
  ailurus dlq replay orders.dlq --error 'connection refused' --since 2026-01-31T12:00:00Z
  ailurus dlq replay orders.dlq --yes --rate 50/s
  ailurus dlq replay --at orders.dlq/0@17 --edit    # shows the difference; --yes replays it
  ailurus dlq show orders.dlq --open --by-key --last 100
  ailurus dlq discard orders.dlq --key o-17 --yes
  ailurus dlq discard orders.dlq --delete --yes     # all of them, and free the space";

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead-letter topics, with the number of dead letters by origin and error.
    ///
    /// Errors that differ only in numbers are counted as one.
    List {
        /// Dead-letter topics [default: all whose names end in the suffix].
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// Count by origin and key instead, those with the most open dead letters first.
        #[arg(long)]
        by_key: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Show dead letters in full: key, value, headers, error, origin.
    ///
    /// With --json an object a line; bytes that are not UTF-8 are base64, and "keyEncoding" or "valueEncoding" is set. It is
    /// no error if none matches; with --at it exits with 3.
    Show {
        /// Name of the dead-letter topic.
        #[arg(required_unless_present = "at")]
        topic: Option<String>,
        /// Only the one at this position, TOPIC/PARTITION@OFFSET; with a topic also PARTITION/OFFSET.
        #[arg(long, value_name = "PLACE", conflicts_with_all = ["last", "open"])]
        at: Option<Place>,
        /// Number of dead letters to show, the last ones that match.
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        last: u32,
        /// Only dead letters that are neither replayed nor discarded.
        #[arg(long)]
        open: bool,
        /// Bring those of a key together, in the order of their records.
        #[arg(long, conflicts_with = "at")]
        by_key: bool,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        output: Json,
    },
    /// Send records to their origin topic again: with their key, value and headers, to their partition, as of now.
    ///
    /// Dry run without --yes: prints what would be done. Each record is acknowledged by all in-sync replicas before its dead
    /// letter is marked; if the command is killed between the two, up to 100 are replayed again. Headers have the number of
    /// replays (dlq-replays) and the first timestamp (dlq-original-timestamp). A record keeps its event's id (ce_id), or gets
    /// one made of its first position, the same in each replay. What a dead letter lacks is read from the record's first
    /// position. A dead letter whose record its topic does not take is refused and stays open.
    Replay {
        /// Name of the dead-letter topic.
        #[arg(required_unless_present = "at")]
        topic: Option<String>,
        /// Only the one at this position, TOPIC/PARTITION@OFFSET; with a topic also PARTITION/OFFSET.
        #[arg(
            long,
            value_name = "PLACE",
            conflicts_with_all = ["error", "key", "origin", "group", "partition", "from_offset", "before_offset", "since", "before"]
        )]
        at: Option<Place>,
        #[command(flatten)]
        filter: FilterArgs,
        /// Refuse dead letters that were replayed so often already.
        #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_REPLAYS)]
        max_replays: u32,
        /// Maximum number of records a second, or a minute, such as 50, 50/s or 30/m [default: no limit].
        #[arg(long, value_name = "N/s")]
        rate: Option<Rate>,
        #[command(flatten)]
        edit: EditArgs,
        #[command(flatten)]
        how: How,
    },
    /// Mark dead letters as discarded; with --delete, delete them from the log.
    ///
    /// Dry run without --yes: prints what would be done.
    Discard {
        /// Name of the dead-letter topic.
        topic: String,
        #[command(flatten)]
        filter: FilterArgs,
        /// Also delete, irrevocably, all records of each partition before its first dead letter that is still open.
        #[arg(long)]
        delete: bool,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Clone, Copy, Args)]
struct How {
    /// Do it; without this option a dry run prints what would be done.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Json,
}

/// Reads; `None` if a signal comes before the end.
async fn read<T>(shutdown: &Shutdown, reading: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    tokio::select! {
        biased;
        () = shutdown.requested() => Ok(None),
        outcome = reading => outcome.map(Some),
    }
}

/// Runs a command that only reads, until a signal comes.
async fn only_read(shutdown: &Shutdown, looking: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    Ok(read(shutdown, looking).await?.unwrap_or(Exit::Interrupted))
}

/// Opens a dead-letter topic, or one partition of it. Partitions that can't be read are named on stderr, and the exit is that
/// of a command that has handled all others.
async fn open(client: &Client, topic: &str, only: Option<i32>) -> anyhow::Result<(Log, Exit)> {
    let log = Log::open(client, topic, only, output::note).await?;
    let is_partial = output::note_missing("dead letters can't be read", log.missing());
    Ok((log, if is_partial { Exit::Failure } else { Exit::Success }))
}

/// Returns a number of dead letters as text.
fn dead_letters(count: u64) -> String {
    if count == 1 { "1 dead letter".to_owned() } else { format!("{count} dead letters") }
}

/// Position of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    topic: Option<String>,
    partition: i32,
    offset: i64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= 0);
        let parts = match text.rsplit_once('@') {
            // No topic has a slash in its name.
            Some((place, offset)) => {
                let (topic, partition) = place.rsplit_once('/').map_or((None, place), |(t, p)| (Some(t), p));
                Some((topic, partition, offset))
            }
            None => text.split_once('/').map(|(partition, offset)| (None, partition, offset)),
        };
        let place = parts.and_then(|(topic, partition, offset)| {
            let partition = number(partition).and_then(|p| i32::try_from(p).ok())?;
            Some(Self { topic: topic.map(str::to_owned), partition, offset: number(offset)? })
        });
        let allowed = "allowed is TOPIC/PARTITION@OFFSET, such as orders.dlq/0@17, or PARTITION/OFFSET";
        place.filter(|p| p.topic.as_deref() != Some("")).ok_or_else(|| allowed.to_owned())
    }
}

/// Sets the topic, which the position may name.
fn set_topic(topic: &mut Option<String>, at: Option<&Place>) -> Result<(), Usage> {
    let named = at.and_then(|at| at.topic.clone());
    match (&topic, named) {
        (Some(topic), Some(named)) if *topic != named => {
            Err(Usage(format!("--at is in {named}, and the topic given is {topic}: give one of them")))
        }
        (None, None) => Err(Usage("the topic is missing: --at TOPIC/PARTITION@OFFSET names it".into())),
        (None, named) => {
            *topic = named;
            Ok(())
        }
        _ => Ok(()),
    }
}

pub async fn run(global: &Global, Dlq { mut action, suffix }: Dlq) -> anyhow::Result<Exit> {
    if let Action::Show { topic, at, .. } | Action::Replay { topic, at, .. } = &mut *action {
        set_topic(topic, at.as_ref())?;
    }
    let named = match &*action {
        Action::List { topics, .. } => topics.as_slice(),
        Action::Show { topic, .. } | Action::Replay { topic, .. } => topic.as_slice(),
        Action::Discard { topic, .. } => std::slice::from_ref(topic),
    };
    // What is written here replaces a dead letter: all in-sync replicas must have it.
    let config = settings::builder(global)?.allow_auto_topic_creation(false).acks(Acks::All).build()?;
    let suffix = suffix.unwrap_or_else(|| config.processor.dead_letter_suffix.clone());
    if suffix.is_empty() {
        return Err(Usage("--suffix is empty: every topic would be a dead-letter topic".into()).into());
    }
    if let Some(other) = named.iter().find(|t| !t.ends_with(&suffix)) {
        let what =
            format!("{other} is no dead-letter topic: it does not end in {suffix} (did you mean {other}{suffix}?)");
        return Err(Usage(what).into());
    }
    let shutdown = Shutdown::install()?;
    let Some(client) = shutdown.unless_requested(Client::connect(config)).await.transpose()? else {
        return Ok(Exit::Interrupted);
    };
    let work = async {
        match *action {
            Action::List { topics, by_key, output } => {
                only_read(&shutdown, list::run(&client, topics, &suffix, by_key, output.json)).await
            }
            Action::Show { topic, at: Some(at), output, .. } => {
                let topic = topic.unwrap_or_default();
                only_read(&shutdown, show::one(&client, &topic, (at.partition, at.offset), output.json)).await
            }
            Action::Show { topic, last, open, by_key, filter, output, .. } => {
                let topic = topic.unwrap_or_default();
                let options = show::Options { count: last as usize, open, by_key, json: output.json };
                only_read(&shutdown, show::last(&client, &topic, &filter.into(), options)).await
            }
            Action::Replay { topic, at, filter, max_replays, rate, edit, how } => {
                let at = at.map(|at| (at.partition, at.offset));
                let filter = at.map_or(filter.into(), |(partition, offset)| Filter::at(partition, offset));
                let (yes, json) = (how.yes, how.output.json);
                let options =
                    replay::Options { filter, at, edit, rate, limits: Limits { max_replays, suffix }, yes, json };
                replay::run(&client, &topic.unwrap_or_default(), options, &shutdown).await
            }
            Action::Discard { topic, filter, delete, how } => {
                let options = discard::Options { filter: filter.into(), delete, yes: how.yes, json: how.output.json };
                discard::run(&client, &topic, options, &shutdown).await
            }
        }
    };
    let result = work.await;
    client.close().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_it_is_printed_or_as_partition_and_offset() {
        let of = |text: &str| text.parse::<Place>().map(|p| (p.topic, p.partition, p.offset)).ok();
        assert_eq!(of("orders.dlq/3@17"), Some((Some("orders.dlq".into()), 3, 17)));
        assert_eq!([of("3/17"), of("3@17")], [Some((None, 3, 17)), Some((None, 3, 17))]);
        for bad in ["", "3", "3/", "/17", "-1/3", "3/-1", "a/b", "3/17/1", "/3@17", "t/3@", "t/@17", "t/x@1", "t@17"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
