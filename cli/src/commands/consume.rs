//! `ailurus consume`: records to stdout, alone or as a member of a group.

pub mod end;
pub mod format;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::str::FromStr;
use std::time::Duration;

use ailurus::{
    Admin, Client, Config, Consumer, ConsumerEvent, IsolationLevel, OffsetReset, Records, StartOffset, TopicPartition,
};
use chrono::DateTime;
use clap::Args;
use tokio::time::Instant;

use crate::args::{Global, Json};
use crate::exit::{Exit, Usage};
use crate::output::{self, note};
use crate::progress::Progress;
use crate::settings;
use crate::signals::Shutdown;
use end::EndOfLog;

/// Print records.
///
/// Without a group it reads all partitions and commits nothing. With one it is a member of that consumer group: it
/// reads the partitions it is assigned and commits what it has printed, and nothing else. It ends with SIGINT or SIGTERM,
/// --max or --exit-at-end; a member then commits, says on stderr what is left of its partitions, and leaves its group. A topic that does not exist is an error: reading
/// creates none.
#[derive(Debug, Args)]
#[command(after_help = "\
Output:
  TOPIC/PARTITION@OFFSET, key and value with a tab between; a null is (null), control
  characters are escaped. With --json an object a line:
  {\"topic\",\"partition\",\"offset\",\"timestamp\",\"key\",\"value\",\"headers\"}, the timestamp in
  milliseconds since 1970, headers as [{\"key\",\"value\"}] in order. Bytes that are not UTF-8
  are base64, and \"keyEncoding\" or \"valueEncoding\" says so.

Exit codes:
  0    the end that was asked for; without --max and --exit-at-end that is a signal
  1    reading failed, or with --exit-at-end a partition could not be read
  2    an option or a setting is wrong
  3    the topic does not exist
  5    no broker could be reached
  6    a broker refused the login or the topic
  130  a signal came before --max or --exit-at-end was reached

Examples:
  ailurus consume orders --exit-at-end
  ailurus consume orders --from 2026-01-31T12:00:00Z --json | jq .value
  ailurus consume orders products --group audit --json >> audit.ndjson")]
pub struct Consume {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Consumer group to be a member of, always a dynamic one; without a name it is REDPANDA_CONSUMER_GROUP_ID.
    /// [default: REDPANDA_CONSUMER_GROUP_ID, if that is set to another group than its default]
    #[arg(long, short, value_name = "GROUP", num_args = 0..=1, default_missing_value = "")]
    group: Option<String>,
    /// Read without a group, also where REDPANDA_CONSUMER_GROUP_ID is set.
    #[arg(long, conflicts_with = "group")]
    no_group: bool,
    /// Where to begin: earliest, latest, an offset (of every partition), or the time of the first record, such as
    /// 2026-01-31T12:00:00Z. With --group it counts where the group has committed nothing, and is earliest or latest.
    /// [default: earliest; with --group REDPANDA_AUTO_OFFSET_RESET]
    #[arg(long, value_name = "WHERE", allow_negative_numbers = true)]
    from: Option<From>,
    /// Which records of transactions to print: read_uncommitted (all) or read_committed.
    /// [default: REDPANDA_ISOLATION_LEVEL]
    #[arg(long, value_name = "LEVEL", value_parser = isolation)]
    isolation: Option<IsolationLevel>,
    /// End after this many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// End when each partition has been read up to where it ended at the start. With --group: each partition that this
    /// member is assigned. A partition that can't be read, for it has no leader, is named on stderr and left out; the exit code is 1
    /// then.
    #[arg(long)]
    exit_at_end: bool,
    #[command(flatten)]
    output: Json,
}

/// A place in each partition: the value of `--from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct From(pub StartOffset);

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "earliest" => StartOffset::Earliest,
            "latest" => StartOffset::Latest,
            _ => match (text.parse(), DateTime::parse_from_rfc3339(text)) {
                (Ok(offset @ 0_i64..), _) => StartOffset::Offset(offset),
                (_, Ok(time)) => StartOffset::Timestamp(time.timestamp_millis()),
                _ => {
                    return Err("allowed are earliest, latest, an offset from 0, or a time as in RFC 3339, such as \
                                2026-01-31T12:00:00Z"
                        .to_owned());
                }
            },
        }))
    }
}

fn isolation(text: &str) -> Result<IsolationLevel, String> {
    match text {
        "read_uncommitted" => Ok(IsolationLevel::ReadUncommitted),
        "read_committed" => Ok(IsolationLevel::ReadCommitted),
        _ => Err("allowed are read_uncommitted and read_committed".to_owned()),
    }
}

/// How long printed records may wait for their commit.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

impl Consume {
    /// Sets the group to what the settings say where the command line leaves it to them.
    fn resolve_group(&mut self, config: &Config) {
        let default = Config::default().group_id;
        match self.group.as_deref() {
            Some("") => self.group = Some(config.group_id.clone()),
            None if !self.no_group && self.fits_group() && config.group_id != default => {
                note(format_args!(
                    "reading as a member of group {} (REDPANDA_CONSUMER_GROUP_ID): --no-group reads without one",
                    config.group_id
                ));
                self.group = Some(config.group_id.clone());
            }
            _ => {}
        }
    }

    /// Returns whether a group can begin where it was asked for.
    fn fits_group(&self) -> bool {
        matches!(self.from, None | Some(From(StartOffset::Earliest | StartOffset::Latest)))
    }
}

pub async fn run(global: &Global, mut args: Consume) -> anyhow::Result<Exit> {
    let mut builder = settings::builder(global)?.allow_auto_topic_creation(false);
    args.resolve_group(&builder.clone().build()?);
    match (&args.group, args.from) {
        (Some(_), Some(From(StartOffset::Earliest))) => builder = builder.offset_reset(OffsetReset::Earliest),
        (Some(_), Some(From(StartOffset::Latest))) => builder = builder.offset_reset(OffsetReset::Latest),
        (Some(_), Some(_)) => {
            return Err(
                Usage("with --group, --from is earliest or latest: a group goes on where it committed".into()).into()
            );
        }
        _ => {}
    }
    if let Some(level) = args.isolation {
        builder = builder.isolation_level(level);
    }
    let config = builder.build()?;
    let shutdown = Shutdown::install()?;
    let client = Client::connect(config).await?;
    let result = read(&client, &args, &shutdown).await;
    client.close().await;
    result
}

async fn read(client: &Client, args: &Consume, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let admin = Admin::new(client);
    let partitions = partitions(&admin, &args.topics).await?;
    let mut missing = BTreeMap::new();
    let mut end = None;
    if args.exit_at_end {
        let ends = admin.list_offsets_each(&partitions, StartOffset::Latest).await?;
        end = Some(EndOfLog::new(reachable(ends, &mut missing)));
    }
    let mut config = client.config().consumer.clone();
    config.auto_commit_interval = None; // what is printed is committed, and that is known here
    let reset = match config.offset_reset {
        OffsetReset::Latest => StartOffset::Latest,
        // With none a partition without a commit ends it with an error.
        OffsetReset::Earliest | OffsetReset::None => StartOffset::Earliest,
    };
    let consumer = match &args.group {
        Some(group) => {
            let topics: Vec<_> = args.topics.iter().map(String::as_str).collect();
            Consumer::subscribe(client, group, &topics, config).await?
        }
        None => {
            let from = args.from.map_or(StartOffset::Earliest, |f| f.0);
            let mut known = starts(&admin, &partitions, from, &mut missing).await?;
            // A partition that can't be asked now is read when it can be; with an end it is left out.
            let mut places: BTreeMap<_, _> = partitions.iter().map(|tp| (tp.clone(), from)).collect();
            if let Some(end) = &mut end {
                known.retain(|tp, _| end.knows(tp));
                places.clear();
                end.assigned(known.clone());
            }
            places.extend(known.into_iter().map(|(tp, offset)| (tp, StartOffset::Offset(offset))));
            if places.is_empty() && end.is_some() {
                return Ok(if tell_missing(&missing) { Exit::Failure } else { Exit::Success });
            }
            Consumer::assign(client, places.into_iter().collect(), config).await?
        }
    };
    let mut reader = Reader {
        admin,
        consumer,
        group: args.group.clone(),
        end,
        reset,
        left: args.max,
        printer: Printer::new(args.output.json, args.max),
        printed: BTreeMap::new(),
        uncommitted: BTreeMap::new(),
        commit_at: Instant::now(),
        missing: BTreeMap::new(),
    };
    let mut incomplete = tell_missing(&missing);
    let result = reader.run(shutdown).await;
    reader.missing.retain(|tp, _| !missing.contains_key(tp));
    incomplete |= tell_missing(&reader.missing);
    let left = reader.left_over();
    let Reader { consumer, printer, group, .. } = reader;
    // Closing leaves the group; an error before it is the one to report.
    let closed = consumer.close().await;
    let complete = result?;
    closed?;
    if let Some(group) = group {
        tracing::info!(records = printer.records, "committed and left the group");
        if let Some(left) = left {
            printer.progress.note(format_args!("left for group {group}: {left}"));
        }
    }
    Ok(match complete {
        false => Exit::Interrupted,
        true if args.exit_at_end && incomplete => Exit::Failure,
        true => Exit::Success,
    })
}

/// Partitions that could not be asked, and why.
type Missing = BTreeMap<TopicPartition, String>;

/// Says which partitions can't be read; whether there is one.
fn tell_missing(missing: &Missing) -> bool {
    output::note_missing("a partition can't be read", &missing.iter().collect::<Vec<_>>())
}

/// The offsets that are known; those that are not are missing.
fn reachable(
    offsets: BTreeMap<TopicPartition, ailurus::Result<i64>>,
    missing: &mut Missing,
) -> BTreeMap<TopicPartition, i64> {
    let mut known = BTreeMap::new();
    for (tp, offset) in offsets {
        match offset {
            Ok(offset) => drop(known.insert(tp, offset)),
            Err(e) => drop(missing.insert(tp, e.full())),
        }
    }
    known
}

/// All partitions of the topics; a topic that does not exist is an error.
async fn partitions(admin: &Admin, topics: &[String]) -> ailurus::Result<Vec<TopicPartition>> {
    let mut all = Vec::new();
    for name in topics {
        let topic = admin.describe_topic(name).await?;
        all.extend(topic.partitions.iter().map(|p| TopicPartition::new(name.as_str(), p.partition)));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// The offset at which each partition begins, inside its log.
async fn starts(
    admin: &Admin,
    partitions: &[TopicPartition],
    from: StartOffset,
    missing: &mut Missing,
) -> ailurus::Result<BTreeMap<TopicPartition, i64>> {
    let StartOffset::Offset(offset) = from else {
        return Ok(reachable(admin.list_offsets_each(partitions, from).await?, missing));
    };
    let first = admin.list_offsets_each(partitions, StartOffset::Earliest).await?;
    let first = reachable(first, missing);
    let mut starts = reachable(admin.list_offsets_each(partitions, StartOffset::Latest).await?, missing);
    starts.retain(|tp, _| first.contains_key(tp));
    for (tp, start) in &mut starts {
        *start = offset.max(first.get(tp).copied().unwrap_or(0)).min(*start);
    }
    Ok(starts)
}

struct Reader {
    admin: Admin,
    consumer: Consumer,
    group: Option<String>,
    end: Option<EndOfLog>,
    /// Where the group begins in a partition for which it has committed nothing.
    reset: StartOffset,
    left: Option<u64>,
    printer: Printer,
    /// Offsets behind what was printed of the partitions that are ours.
    printed: BTreeMap<TopicPartition, i64>,
    /// Offsets behind what was printed, not committed yet.
    uncommitted: BTreeMap<TopicPartition, i64>,
    commit_at: Instant,
    /// Partitions that were assigned and could not be asked where they begin.
    missing: Missing,
}

impl Reader {
    /// Reads until the end that was asked for, and tells whether it was reached: a signal is the end only where no other
    /// was asked for. Whatever ends it, what was printed is committed.
    async fn run(&mut self, shutdown: &Shutdown) -> anyhow::Result<bool> {
        let result = self.read(shutdown).await;
        let committed = self.commit(None).await;
        result.and(committed)?;
        Ok(self.is_done() || (self.left.is_none() && self.end.is_none()))
    }

    fn is_done(&self) -> bool {
        self.left == Some(0) || self.end.as_ref().is_some_and(EndOfLog::is_reached)
    }

    async fn read(&mut self, shutdown: &Shutdown) -> anyhow::Result<()> {
        while !self.is_done() {
            let commit_due = !self.uncommitted.is_empty();
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                () = tokio::time::sleep_until(self.commit_at), if commit_due => self.commit(None).await?,
                event = self.consumer.recv() => match event? {
                    ConsumerEvent::Records(records) => self.print(records)?,
                    ConsumerEvent::Assigned(partitions) => self.assigned(partitions).await?,
                    ConsumerEvent::Revoked(revocation) => {
                        self.commit(Some(&revocation.partitions)).await?;
                        self.forget(&revocation.partitions);
                    }
                    ConsumerEvent::Lost(partitions) => {
                        self.printer.progress.note(format_args!(
                            "the group has given {} partitions to others: what was printed since the last commit will be \
                             printed again by them",
                            partitions.len()
                        ));
                        self.forget(&partitions);
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    fn print(&mut self, records: Records) -> io::Result<()> {
        let take = self.left.map_or(records.records.len(), |left| {
            usize::try_from(left).unwrap_or(usize::MAX).min(records.records.len())
        });
        let mut next = records.next_offset;
        if let Some(cut) = records.records.get(take) {
            next = cut.offset;
        }
        self.printer.print(&records, take)?;
        if let Some(left) = &mut self.left {
            *left -= take as u64;
        }
        let tp = TopicPartition::new(records.topic, records.partition);
        if let Some(end) = &mut self.end {
            end.advanced(&tp, next);
        }
        if self.group.is_some() {
            if self.uncommitted.is_empty() {
                self.commit_at = Instant::now() + COMMIT_INTERVAL;
            }
            self.printed.insert(tp.clone(), next);
            self.uncommitted.insert(tp, next);
        }
        Ok(())
    }

    /// Notes where the new partitions begin: at what the group has committed.
    async fn assigned(&mut self, partitions: Vec<TopicPartition>) -> anyhow::Result<()> {
        tracing::info!(count = partitions.len(), "partitions assigned");
        let (Some(end), Some(group)) = (&mut self.end, &self.group) else { return Ok(()) };
        let positions = self.admin.list_offsets_each(&partitions, self.reset).await?;
        let mut positions = reachable(positions, &mut self.missing);
        for offset in self.admin.describe_group(group).await?.offsets {
            let position = positions.get_mut(&TopicPartition::new(offset.topic, offset.partition));
            if let (Some(position), Some(committed)) = (position, offset.committed) {
                *position = committed;
            }
        }
        end.assigned(positions);
        Ok(())
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        for tp in partitions {
            self.uncommitted.remove(tp);
            self.printed.remove(tp);
            if let Some(end) = &mut self.end {
                end.revoked(tp);
            }
        }
    }

    /// What can be read of our partitions, as of the last fetch, and was not printed; none if that is nothing.
    fn left_over(&self) -> Option<String> {
        let left = self.consumer.assignment().into_iter().filter_map(|tp| {
            let position = self.consumer.position(&tp)?;
            let from = self.printed.get(&tp).copied().unwrap_or(position);
            let left = self.consumer.lag(&tp)? + position - from; // what was handed to us and cut off by --max, too
            (left > 0).then(|| format!("{tp}: {left} from offset {from} on"))
        });
        let left: Vec<_> = left.collect();
        (!left.is_empty()).then(|| left.join("; "))
    }

    /// Commits what was printed and flushed, of these partitions or of all.
    async fn commit(&mut self, only: Option<&[TopicPartition]>) -> anyhow::Result<()> {
        let wanted = |tp: &TopicPartition| only.is_none_or(|only| only.contains(tp));
        let offsets: Vec<_> =
            self.uncommitted.iter().filter(|(tp, _)| wanted(tp)).map(|(tp, o)| (tp.clone(), *o)).collect();
        if !offsets.is_empty() {
            self.consumer.commit(&offsets).await?;
            self.uncommitted.retain(|tp, _| !wanted(tp));
            tracing::debug!(partitions = offsets.len(), "committed");
        }
        Ok(())
    }
}

struct Printer {
    out: BufWriter<Stdout>,
    json: bool,
    records: u64,
    progress: Progress,
}

impl Printer {
    fn new(json: bool, max: Option<u64>) -> Self {
        let stdout = io::stdout();
        // Records on the terminal are progress enough.
        let progress = if stdout.is_terminal() { Progress::hidden() } else { Progress::new("records", max) };
        Self { out: BufWriter::with_capacity(256 << 10, stdout), json, records: 0, progress }
    }

    /// Prints the first `take` records and flushes them.
    fn print(&mut self, records: &Records, take: usize) -> io::Result<()> {
        for record in records.records.iter().take(take) {
            if self.json {
                format::json(&mut self.out, &records.topic, records.partition, record)?;
            } else {
                format::text(&mut self.out, &records.topic, records.partition, record)?;
            }
        }
        self.records += take as u64;
        self.progress.set(self.records);
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_a_word_an_offset_or_a_time() {
        let from = |text: &str| text.parse::<From>().map(|f| f.0);
        assert_eq!(from("earliest"), Ok(StartOffset::Earliest));
        assert_eq!(from("latest"), Ok(StartOffset::Latest));
        assert_eq!(from("0"), Ok(StartOffset::Offset(0)));
        assert_eq!(from("5000000000"), Ok(StartOffset::Offset(5_000_000_000)));
        assert_eq!(from("1970-01-01T00:00:01.5Z"), Ok(StartOffset::Timestamp(1500)));
        assert_eq!(from("1970-01-01T01:00:00+01:00"), Ok(StartOffset::Timestamp(0)));
        for bad in ["-1", "", "yesterday", "2026-01-31"] {
            assert!(from(bad).is_err_and(|e| e.contains("RFC 3339")), "{bad}");
        }
    }
}
