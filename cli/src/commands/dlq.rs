//! `ailurus dlq`: look at dead letters and work them off.

mod discard;
mod list;
mod lock;
mod log;
mod marks;
mod replay;
mod show;

use std::str::FromStr;

use ailurus::{Acks, Client};
use clap::{Args, Subcommand};

use crate::exit::{Exit, Usage};
use crate::options::{Global, Json};
use crate::settings;
use crate::signals::Shutdown;
use log::Filter;

/// Look at dead letters, send their records again, or discard them.
///
/// A dead letter is a record that its group could not handle: it stands in the dead-letter topic, which is named after the
/// record's topic with .dlq behind it, and says why in its headers.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Dlq {
    #[command(subcommand)]
    action: Action,
    /// What the names of dead-letter topics end in [default: REDPANDA_DEAD_LETTER_SUFFIX, else .dlq].
    #[arg(long, global = true, value_name = "TEXT")]
    suffix: Option<String>,
}

const AFTER_HELP: &str = "\
replay and discard are dry runs without --yes: they print what would be done. Letters that were
replayed or discarded are marked in the dead-letter topic itself, by records without key and value:
they are neither replayed again nor counted as open. One command works on a topic at a time; while
it runs it is the member of the group TOPIC.replay.

Exit codes:
  0    done, or dry run
  1    a letter was refused, or a partition could not be read: what could be was done
  2    an option or a setting is wrong
  3    the topic, the partition of --partition or, with show --at, the letter does not exist
  5    a broker could not be reached, or a record could not be written in time; what was replayed
       before is marked
  6    another replay or discard is at work on the topic, or a broker refused
  130  a signal came before the end; what was replayed before is marked

Examples:
  ailurus dlq list
  ailurus dlq show orders.dlq --last 3
  ailurus dlq show --at orders.dlq/0@17
  ailurus dlq replay orders.dlq --error 'connection refused' --since 2026-01-31T12:00:00Z
  ailurus dlq replay orders.dlq --yes
  ailurus dlq discard orders.dlq --key o-17 --yes
  ailurus dlq discard orders.dlq --delete --yes     # all of them, and free the space";

#[derive(Debug, Subcommand)]
enum Action {
    /// Dead-letter topics, and how many letters there are of each origin and error. Errors that differ only in numbers are
    /// counted as one.
    List {
        /// These; all whose names end in the suffix if none is given.
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        #[command(flatten)]
        output: Json,
    },
    /// Letters in full: key, value, headers, error, origin. That none fits is no error; with --at it exits with 3.
    ///
    /// With --json an object a line; bytes that are not UTF-8 are base64, and "keyEncoding" or "valueEncoding" says so.
    Show {
        /// The dead-letter topic.
        #[arg(required_unless_present = "at")]
        topic: Option<String>,
        /// The one at this place, as everything prints it: TOPIC/PARTITION@OFFSET; with the topic given also PARTITION/OFFSET.
        #[arg(long, value_name = "PLACE", conflicts_with_all = ["last", "open"])]
        at: Option<Place>,
        /// The last so many that fit.
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        last: u32,
        /// Only those that are neither replayed nor discarded.
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        output: Json,
    },
    /// Send records to their origin topic again: with their key, value and headers, to their partition, as of now.
    ///
    /// Each is acknowledged by all in-sync replicas before it is marked. One that dies between the two leaves up to 100
    /// letters that are replayed again. A record says in headers how often it was replayed (dlq-replays) and its first timestamp
    /// (dlq-original-timestamp). It keeps its event's id (ce_id), or gets one made of its first place, the same in each replay, by
    /// which a reader knows it again. What was left out of a letter is read where the record was. What a topic does not take is
    /// refused and stays open.
    Replay {
        /// The dead-letter topic.
        topic: String,
        #[command(flatten)]
        filter: Filter,
        /// Refuse what was replayed so often already.
        #[arg(long, value_name = "N", default_value_t = 3)]
        max_replays: u32,
        #[command(flatten)]
        how: How,
    },
    /// Mark letters as not to be replayed any more; with --delete, delete them from the log.
    Discard {
        /// The dead-letter topic.
        topic: String,
        #[command(flatten)]
        filter: Filter,
        /// Also delete, for good, all records of each partition before its first letter that is still open then.
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

/// Reads until a signal comes: then `None`.
async fn read<T>(shutdown: &Shutdown, reading: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    tokio::select! {
        biased;
        () = shutdown.requested() => Ok(None),
        outcome = reading => outcome.map(Some),
    }
}

/// Does what only looks, until a signal comes.
async fn looked(shutdown: &Shutdown, looking: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    Ok(read(shutdown, looking).await?.unwrap_or(Exit::Interrupted))
}

/// So many letters.
fn letters(count: u64) -> String {
    if count == 1 { "1 letter".to_owned() } else { format!("{count} letters") }
}

/// Where a letter is.
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

/// The topic of `show`, which the place may name.
fn topic_of_show(topic: &mut Option<String>, at: Option<&Place>) -> Result<(), Usage> {
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
    if let Action::Show { topic, at, .. } = &mut action {
        topic_of_show(topic, at.as_ref())?;
    }
    let named = match &action {
        Action::List { topics, .. } => topics.as_slice(),
        Action::Show { topic, .. } => topic.as_slice(),
        Action::Replay { topic, .. } | Action::Discard { topic, .. } => std::slice::from_ref(topic),
    };
    // An offset may be committed on the strength of what is written here: all replicas must have it.
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
        match action {
            Action::List { topics, output } => {
                looked(&shutdown, list::run(&client, topics, &suffix, output.json)).await
            }
            Action::Show { topic, at: Some(at), output, .. } => {
                let topic = topic.unwrap_or_default();
                looked(&shutdown, show::one(&client, &topic, (at.partition, at.offset), output.json)).await
            }
            Action::Show { topic, last, open, filter, output, .. } => {
                let (topic, last) = (topic.unwrap_or_default(), last as usize);
                looked(&shutdown, show::last(&client, &topic, &filter, open, last, output.json)).await
            }
            Action::Replay { topic, filter, max_replays, how } => {
                let options = replay::Options { filter, max_replays, suffix, yes: how.yes, json: how.output.json };
                replay::run(&client, &topic, options, &shutdown).await
            }
            Action::Discard { topic, filter, delete, how } => {
                let options = discard::Options { filter, delete, yes: how.yes, json: how.output.json };
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
