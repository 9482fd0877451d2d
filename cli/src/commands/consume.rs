//! `ailurus consume`: records to stdout, alone or as a member of a group.

pub mod format;
mod left;
mod reader;
mod start;

use std::collections::BTreeMap;

use ailurus::{Admin, Client, IsolationLevel, OffsetReset, StartOffset, TopicPartition};
use ailurus_serve::log_end::EndOfLog;
use clap::Args;

use crate::exit::{Exit, Usage};
use crate::options::{Global, Json};
use crate::output::{self, note};
use crate::place::Place;
use crate::selection::Selection;
use crate::settings;
use crate::signals::Shutdown;
use reader::Reader;
use start::{At, Start};

/// Print records.
///
/// Without a group it reads all partitions and commits nothing. With one it is a member of that consumer group: it reads
/// the partitions assigned to it, and commits what it has printed. It ends with SIGINT or SIGTERM, --max or --exit-at-end; a
/// member then commits, prints on stderr the lag of its partitions, and leaves its group. A topic that does not exist is an
/// error.
#[derive(Debug, Args)]
#[command(after_help = "\
Output:
  TOPIC/PARTITION@OFFSET, key and value with a tab between. A null is (null), the text (null) is
  \\(null); backslashes, control characters and bytes that are not UTF-8 are escaped: \\\\, \\n, \\t,
  \\u{1b}, \\xff. With --json an object a line:
  {\"topic\",\"partition\",\"offset\",\"timestamp\",\"key\",\"value\",\"headers\"}, the timestamp in
  milliseconds since 1970, headers as [{\"key\",\"value\"}] in order. Bytes that are not UTF-8
  are base64, and \"keyEncoding\" or \"valueEncoding\" is set.

Exit codes:
  0    the end was reached; without --max and --exit-at-end that is a signal
  1    reading failed, or with --exit-at-end a partition could not be read
  2    an option or a setting is wrong
  3    the topic, or the record of --at, does not exist
  5    no broker could be reached
  6    a broker refused the login or the topic
  130  a signal came before --max or --exit-at-end was reached

Examples:
  ailurus consume orders --exit-at-end
  ailurus consume orders --from 2026-01-31T12:00:00Z --json | jq .value
  ailurus consume orders --from -5m                     # records of the last five minutes
  ailurus consume orders --partition 3 --last 10
  ailurus consume --at orders/3@1742                    # the record that a log line names
  ailurus consume orders products --group audit --json >> audit.ndjson")]
pub struct Consume {
    /// Topics to read.
    #[arg(required_unless_present = "at", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Print the record at this position, as log lines have it, and end; without a group.
    #[arg(long, value_name = "TOPIC/PARTITION@OFFSET", conflicts_with_all = ["topics", "group", "from", "partitions", "last", "max", "exit_at_end"])]
    at: Option<At>,
    /// Partitions to read, of each topic, separated by commas; without a group.
    #[arg(long = "partition", value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..), conflicts_with = "group")]
    partitions: Vec<i32>,
    /// Print the last N offsets of each partition, as it was at the start, and end; without a group.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with_all = ["group", "from"])]
    last: Option<u32>,
    /// Consumer group to join, as a dynamic member; without a name, and then after the topics, REDPANDA_CONSUMER_GROUP_ID.
    /// A member takes partitions from the others, such as a running service: without this option no group is joined,
    /// whatever the settings are.
    #[arg(long, short, value_name = "GROUP", num_args = 0..=1, default_missing_value = "")]
    group: Option<String>,
    /// First position: earliest, latest, an offset (of every partition), or the time of the first record: so long ago
    /// (-5m, 2h), a date, a time such as 2026-01-31T12:00:00Z, or milliseconds since 1970 where no partition has such an
    /// offset. With --group it is earliest or latest, for partitions without a committed offset.
    /// [default: earliest; with --group REDPANDA_AUTO_OFFSET_RESET]
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    from: Option<Place>,
    /// Records of transactions: read_uncommitted (all) or read_committed [default: REDPANDA_ISOLATION_LEVEL].
    #[arg(long, value_name = "LEVEL", value_parser = isolation)]
    isolation: Option<IsolationLevel>,
    /// End after this many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// End when each partition has been read up to its end at the start. With --group: each partition assigned to this
    /// member; a member without partitions waits for some, or until its group has committed all. A partition without a
    /// leader is named on stderr and left out; the exit code is 1 then.
    #[arg(long)]
    exit_at_end: bool,
    #[command(flatten)]
    output: Json,
}

fn isolation(text: &str) -> Result<IsolationLevel, String> {
    match text {
        "read_uncommitted" => Ok(IsolationLevel::ReadUncommitted),
        "read_committed" => Ok(IsolationLevel::ReadCommitted),
        _ => Err("allowed are read_uncommitted and read_committed".to_owned()),
    }
}

impl Consume {
    fn start(&self) -> Start {
        match self.last {
            Some(n) => Start::Last(n.into()),
            None => Start::From(self.from.map_or(StartOffset::Earliest, |f| f.0)),
        }
    }

    fn has_end(&self) -> bool {
        self.exit_at_end || self.last.is_some()
    }

    /// Returns the chosen partitions of the topics, which must exist.
    async fn find_partitions(&self, admin: &Admin) -> anyhow::Result<Vec<TopicPartition>> {
        let selections = self.topics.iter().map(|topic| Selection::new(topic, &self.partitions));
        Selection::find_all(&selections.collect::<Vec<_>>(), admin).await
    }
}

pub async fn run(global: &Global, mut args: Consume) -> anyhow::Result<Exit> {
    let mut builder = settings::builder(global)?.allow_auto_topic_creation(false);
    if args.group.as_deref() == Some("") {
        args.group = Some(builder.clone().build()?.group_id);
    }
    match (&args.group, args.from) {
        (Some(_), Some(Place(StartOffset::Earliest))) => builder = builder.offset_reset(OffsetReset::Earliest),
        (Some(_), Some(Place(StartOffset::Latest))) => builder = builder.offset_reset(OffsetReset::Latest),
        (Some(_), Some(_)) => {
            return Err(Usage(
                "with --group, --from is earliest or latest: a group continues at its committed offsets".into(),
            )
            .into());
        }
        _ => {}
    }
    if let Some(level) = args.isolation {
        builder = builder.isolation_level(level);
    }
    let config = builder.build()?;
    let shutdown = Shutdown::install()?;
    let Some(client) = shutdown.unless_requested(Client::connect(config)).await.transpose()? else {
        return Ok(Exit::Interrupted);
    };
    let result = match &args.at {
        Some(at) => read_one(&client, &args, at, &shutdown).await,
        None => read(&client, &args, &shutdown).await,
    };
    client.close().await;
    result
}

async fn read(client: &Client, args: &Consume, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let mut missing = Missing::new();
    let Some(opened) = shutdown.unless_requested(open(client, args, &mut missing)).await else {
        return Ok(Exit::Interrupted);
    };
    let opened = opened?;
    let mut incomplete = note_missing(&missing);
    let Some(mut reader) = opened else { return Ok(if incomplete { Exit::Failure } else { Exit::Success }) };
    if let Some(group) = args.group.clone() {
        shutdown.set_waiting_for(move || {
            format!(
                "the commit of what was printed, and to leave group {group} (the brokers do not respond, or are slow)"
            )
        });
    }
    let result = reader.run(shutdown).await;
    reader.missing.retain(|tp, _| !missing.contains_key(tp));
    incomplete |= note_missing(&reader.missing);
    let left = reader.left_over();
    let Reader { consumer, printer, group, .. } = reader;
    // Closing leaves the group; an error before it is the one to report.
    let closed = consumer.close().await;
    let complete = result?;
    closed?;
    if let Some(group) = group {
        tracing::info!(records = printer.records, "committed and left the group");
        for l in &left {
            tracing::debug!(partition = %l.partition, records = l.records, from = l.from, "left to the group");
        }
        if !left.is_empty() {
            let left = left::describe(&left, args.output.json);
            printer.progress.note(format_args!("left for group {group}: {left}"));
        }
    }
    Ok(match complete {
        false => Exit::Interrupted,
        true if args.has_end() && incomplete => Exit::Failure,
        true => Exit::Success,
    })
}

/// Opens a reader; `None` if no partition can be read and there is an end.
async fn open(client: &Client, args: &Consume, missing: &mut Missing) -> anyhow::Result<Option<Reader>> {
    let admin = Admin::new(client);
    let partitions = args.find_partitions(&admin).await?;
    let mut end = None;
    if args.has_end() {
        let ends = admin.list_offsets_each(&partitions, StartOffset::Latest).await?;
        end = Some(EndOfLog::new(reachable(ends, missing)));
    }
    let mut config = client.config().consumer.clone();
    config.auto_commit_interval = None; // what was printed is committed by the reader
    let consumer = match &args.group {
        Some(group) => client.consumer(group).config(config).subscribe(&args.topics).await?,
        None => {
            let mut known = start::offsets(&admin, &partitions, args.start(), missing).await?;
            // A partition whose leader does not respond now is read later; with an end it is left out.
            let from = args.from.map_or(StartOffset::Earliest, |f| f.0);
            let mut places: BTreeMap<_, _> = partitions.iter().map(|tp| (tp.clone(), from)).collect();
            if let Some(end) = &mut end {
                known.retain(|tp, _| end.knows(tp));
                places.clear();
                end.assigned(known.clone());
            }
            places.extend(known.into_iter().map(|(tp, offset)| (tp, StartOffset::Offset(offset))));
            if places.is_empty() && end.is_some() {
                return Ok(None);
            }
            client.reader().config(config).assign(places).await?
        }
    };
    Ok(Some(Reader::new(client, consumer, args, partitions, end)))
}

/// Prints the record at one position.
async fn read_one(client: &Client, args: &Consume, at: &At, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let open = async {
        let admin = Admin::new(client);
        let selection = Selection::new(&at.partition.topic, &[at.partition.partition]);
        let partitions = selection.find(&admin).await?;
        let first = admin.list_offsets(&partitions, StartOffset::Earliest).await?;
        let end = admin.list_offsets(&partitions, StartOffset::Latest).await?;
        let offset_of = |offsets: &BTreeMap<TopicPartition, i64>| offsets.get(&at.partition).copied().unwrap_or(0);
        let (first, end) = (offset_of(&first), offset_of(&end));
        if !(first..end).contains(&at.offset) {
            return Ok(Err(format!(
                "{} has no offset {}: its log goes from {first} to {end}",
                at.partition, at.offset
            )));
        }
        let mut until = EndOfLog::new(BTreeMap::from([(at.partition.clone(), at.offset + 1)]));
        until.assigned(BTreeMap::from([(at.partition.clone(), at.offset)]));
        let place = (at.partition.clone(), StartOffset::Offset(at.offset));
        let consumer = client.reader().assign([place]).await?;
        anyhow::Ok(Ok(Reader::new(client, consumer, args, partitions, Some(until))))
    };
    let Some(reader) = shutdown.unless_requested(open).await else { return Ok(Exit::Interrupted) };
    let mut reader = match reader? {
        Ok(reader) => reader,
        Err(why) => {
            note(format_args!("error: {why}"));
            return Ok(Exit::NotFound);
        }
    };
    let complete = reader.run(shutdown).await;
    let Reader { consumer, printer, .. } = reader;
    consumer.close().await?;
    match complete? {
        false => Ok(Exit::Interrupted),
        true if printer.records > 0 => Ok(Exit::Success),
        true => {
            note(format_args!(
                "error: there is no record at {}@{}: it was compacted away, its transaction was aborted, or it marks the end of one",
                at.partition, at.offset
            ));
            Ok(Exit::NotFound)
        }
    }
}

/// Partitions whose offsets are not known, and why.
type Missing = BTreeMap<TopicPartition, String>;

/// Prints which partitions can't be read; returns whether there is one.
fn note_missing(missing: &Missing) -> bool {
    output::note_missing("a partition can't be read", &missing.iter().collect::<Vec<_>>())
}

/// Returns the offsets that are known, and adds the others to `missing`.
fn reachable(
    offsets: BTreeMap<TopicPartition, ailurus::Result<i64>>,
    missing: &mut Missing,
) -> BTreeMap<TopicPartition, i64> {
    let mut known = BTreeMap::new();
    for (tp, offset) in offsets {
        match offset {
            Ok(offset) => drop(known.insert(tp, offset)),
            Err(e) => drop(missing.insert(tp, format!("{e:#}"))),
        }
    }
    known
}
