//! `ailurus produce`: lines from stdin become records.

mod deliveries;
mod key;
mod lines;

use std::borrow::Cow;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ailurus::{Client, Compression, ErrorKind, Headers, PartitionerKind, Producer, ProducerConfig, ProducerRecord};
use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::sync::mpsc;

use crate::exit::{self, Exit, Usage};
use crate::options::{Codec, Global, MaxRequestSize};
use crate::output::thousands;
use crate::settings;
use crate::signals::Shutdown;
use deliveries::{Pending, State, watch_deliveries};
use lines::{Chunk, Line, Splitter};
use tokio::time::Instant;

/// Send each line of stdin as a record.
///
/// A line is sent as it is, UTF-8 or not, without its line ending (LF or CRLF); a byte order mark before the first one is
/// left out. Empty lines are skipped and counted, unless --empty says otherwise. Lines are sent while others wait for their
/// acknowledgement; memory is bounded, and reading waits when the broker is slower. The last line on stderr has the totals.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes:
  0    every line was delivered
  1    a line was not delivered, also with --on-error skip
  2    an option or a setting is wrong
  3    the topic does not exist
  5    no broker could be reached
  6    a broker refused the login or the topic
  130  interrupted: reading stopped, and what was read was delivered

Examples:
  ailurus produce orders --key-field orderId --compression gzip < orders.ndjson
  ailurus produce images --max-request-size 5MB < lines-of-base64
  printf 'hello\\n' | ailurus produce greetings --create --key en --header lang=en --acks-out
  printf 'o-17:\\n' | ailurus produce orders --key-separator : --empty tombstone")]
pub struct Produce {
    /// Topic; it must exist, unless --create or REDPANDA_ALLOW_AUTO_TOPIC_CREATION=true is given.
    topic: String,
    /// Let the broker create the topic, with its own defaults, if it does not exist and the broker allows it.
    #[arg(long)]
    create: bool,
    /// Read each line as a JSON object whose field NAME, a string or a number, is the record's key.
    #[arg(long, value_name = "NAME", conflicts_with = "key")]
    key_field: Option<String>,
    /// Split each line at the first occurrence of this text into key and value.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["key", "key_field"], value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// Handling of an empty line, and, for tombstone, of an empty value behind --key-separator.
    #[arg(long, value_enum, default_value_t = Empty::Skip)]
    empty: Empty,
    /// Keep carriage returns at the ends of lines, and a byte order mark.
    #[arg(long)]
    raw_lines: bool,
    /// Key of every record. Without a key, records go to one partition for some KiB, then to another.
    #[arg(long, value_name = "STR")]
    key: Option<String>,
    /// Partition of every record, in place of the one chosen by key.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..), allow_negative_numbers = true)]
    partition: Option<i32>,
    /// Partitioner: murmur2 of the key (as the Java client and KafkaJS), consistent_random (CRC-32 of the key, as
    /// librdkafka) or round_robin, which ignores the key [default: REDPANDA_PARTITIONER, else murmur2].
    #[arg(long, value_name = "NAME", conflicts_with = "partition")]
    partitioner: Option<PartitionerKind>,
    /// Header of every record; may be given several times, in order and with repeated names.
    #[arg(long = "header", value_name = "K=V", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Compression of batches [default: REDPANDA_COMPRESSION, else none].
    #[arg(long, value_enum)]
    compression: Option<Codec>,
    /// gzip level, 1 (fast) to 9 (small) [default: REDPANDA_COMPRESSION_LEVEL, else 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    compression_level: Option<u32>,
    #[command(flatten)]
    max_request_size: MaxRequestSize,
    /// Maximum time that a record waits for others in its batch, in milliseconds [default: REDPANDA_LINGER, else 0].
    #[arg(long, value_name = "N")]
    linger_ms: Option<u64>,
    /// Print {"topic","partition","offset","key"} on stdout for each record once it is acknowledged, in input order.
    #[arg(long)]
    acks_out: bool,
    /// Handling of a line that can't be sent.
    #[arg(long, value_enum, default_value_t = OnError::Stop)]
    on_error: OnError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    /// Read no further; the lines before it are delivered
    Stop,
    /// Report it, count it and go on
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Empty {
    /// Skip it, and count it in the last line
    Skip,
    /// Send it as a record with an empty value
    Send,
    /// Send it as a record without a value, which deletes its key from a compacted topic
    Tombstone,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((k, v)) if !k.is_empty() => Ok((k.to_owned(), v.to_owned())),
        _ => Err("write name=value".to_owned()),
    }
}

/// Maximum number of records in flight; the producer's memory bounds their bytes.
const MAX_IN_FLIGHT: usize = 100_000;
/// Hint for a record that is too large.
const SIZE_HINT: &str = "raise --max-request-size (REDPANDA_MAX_REQUEST_SIZE), and max.message.bytes of the topic";

pub async fn run(global: &Global, args: Produce) -> anyhow::Result<Exit> {
    let builder = settings::builder(global)?;
    // The library's default is for services: a topic on a command line may be mistyped.
    let may_create = args.create || builder.has_variable("REDPANDA_ALLOW_AUTO_TOPIC_CREATION");
    let mut config = builder.build()?;
    config.allow_auto_topic_creation = args.create || (may_create && config.allow_auto_topic_creation);
    let producer_config = args.producer_config(config.producer.clone())?;
    let close_within = producer_config.delivery_timeout + Duration::from_secs(5);
    let limit = producer_config.max_request_size;
    let shutdown = Shutdown::install()?;
    let Some(client) = shutdown.unless_requested(Client::connect(config)).await.transpose()? else {
        return Ok(Exit::Interrupted);
    };
    let producer = client.producer().config(producer_config).start()?;

    let begun = Instant::now();
    let state = Arc::new(State::new(args.acks_out));
    let watched = Arc::clone(&state);
    shutdown.set_waiting_for(move || {
        let waiting = watched.sent.load(Ordering::Relaxed).saturating_sub(watched.ended.load(Ordering::Relaxed));
        format!("the acknowledgement of {} records (the brokers do not respond, or are slow)", thousands(waiting))
    });
    let (pending, acknowledged) = mpsc::channel(MAX_IN_FLIGHT);
    let acks = tokio::spawn(watch_deliveries(acknowledged, args.acks_out, args.on_error, Arc::clone(&state)));
    let mut sent = Sent::default();
    let result = send_lines(&args, &producer, limit, &shutdown, &state, pending, &mut sent).await;
    let (totals, printed) = acks.await.context("the task that waits for acknowledgements ended early")?;
    let closed = producer.close(close_within).await;
    client.close().await;

    // The totals are printed after an error too.
    state.progress.clear();
    let error = result.and(closed.map_err(Into::into)).and(printed).err();
    if let Some(e) = &error {
        state.progress.note(format_args!("error: {}", exit::text(e)));
    }
    let failed = sent.bad_lines + totals.failed;
    let seconds = begun.elapsed().as_secs_f64();
    let skipped = match sent.skipped {
        0 => String::new(),
        1 => "1 empty line skipped, ".to_owned(),
        n => format!("{} empty lines skipped, ", thousands(n)),
    };
    state.progress.note(format_args!(
        "{} records, {} bytes, {seconds:.3} s, {} records/s, {skipped}{} failed",
        thousands(totals.records),
        thousands(totals.bytes),
        thousands((totals.records as f64 / seconds.max(1e-9)).round() as u64),
        thousands(failed)
    ));
    Ok(match (failed, sent.interrupted) {
        _ if error.is_some() => error.as_ref().map_or(Exit::Failure, exit::exit_of),
        (1.., _) => Exit::Failure,
        (0, true) => Exit::Interrupted,
        (0, false) => Exit::Success,
    })
}

impl Produce {
    fn producer_config(&self, mut config: ProducerConfig) -> anyhow::Result<ProducerConfig> {
        if let Some(partitioner) = &self.partitioner {
            config.partitioner = partitioner.clone();
        }
        self.max_request_size.apply(&mut config);
        if let Some(ms) = self.linger_ms {
            config.linger = Duration::from_millis(ms);
        }
        config.compression = match (self.compression, config.compression) {
            // The level of the environment applies to gzip of the command line.
            (None, set) | (Some(Codec::Gzip), set @ Compression::Gzip { .. }) => set,
            (Some(codec), _) => codec.into(),
        };
        if let Some(level) = self.compression_level {
            if !matches!(config.compression, Compression::Gzip { .. }) {
                return Err(Usage("--compression-level needs --compression gzip".to_owned()).into());
            }
            config.compression = Compression::gzip(level)?;
        }
        Ok(config)
    }

    /// Returns the key and the value of a line.
    fn parts_of<'a>(&'a self, line: &'a [u8]) -> Result<Parts<'a>, String> {
        let bytes = |key: key::Key<'a>| match key {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        let (key, value) = match (&self.key_field, &self.key, &self.key_separator) {
            (Some(field), ..) => (Some(bytes(key::field(line, field)?)), line),
            (None, Some(key), _) => (Some(Cow::Borrowed(key.as_bytes())), line),
            (None, None, Some(separator)) => {
                let separator = separator.as_bytes();
                let at = line.windows(separator.len()).position(|w| w == separator);
                let at = at.ok_or("the line has no --key-separator")?;
                (Some(Cow::Borrowed(&line[..at])), &line[at + separator.len()..])
            }
            (None, None, None) => (None, line),
        };
        Ok((key, (self.empty != Empty::Tombstone || !value.is_empty()).then_some(value)))
    }
}

/// Key and value of a record.
type Parts<'a> = (Option<Cow<'a, [u8]>>, Option<&'a [u8]>);

/// Outcome of the reading side.
#[derive(Debug, Default)]
struct Sent {
    bad_lines: u64,
    /// Number of empty lines.
    skipped: u64,
    interrupted: bool,
}

async fn send_lines(
    args: &Produce,
    producer: &Producer,
    limit: usize,
    shutdown: &Shutdown,
    state: &State,
    pending: mpsc::Sender<Pending>,
    sent: &mut Sent,
) -> anyhow::Result<()> {
    let headers = args.headers.iter().fold(Headers::new(), |h, (k, v)| h.with(k, v));
    let mut chunks = read_stdin(limit, args.raw_lines);
    loop {
        let chunk = tokio::select! {
            biased;
            () = shutdown.requested() => {
                sent.interrupted = true;
                return Ok(());
            }
            chunk = chunks.recv() => chunk,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        for (number, line) in chunk.context("stdin can't be read")?.lines() {
            if state.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let line = match line {
                Line::Empty if args.empty == Empty::Skip => {
                    sent.skipped += 1;
                    continue;
                }
                Line::Empty => Line::Text(b""),
                line => line,
            };
            let handed = tokio::select! {
                biased;
                handed = send_line(args, producer, &headers, number, line, limit) => handed,
                // A full buffer waits for the brokers, maybe for long.
                () = shutdown.requested() => {
                    sent.interrupted = true;
                    return Ok(());
                }
            };
            sent.bad_lines += u64::from(handed.is_err());
            match handed? {
                Ok(p) => {
                    state.sent.fetch_add(1, Ordering::Relaxed);
                    if pending.send(p).await.is_err() {
                        return Ok(()); // the other side has ended, and reports why
                    }
                }
                Err(what) => {
                    state.line_error(number, sent.bad_lines, what);
                    sent.bad_lines += 1;
                    if args.on_error == OnError::Stop {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Sends a line. The outer error ends the command, the inner one is of this line alone.
async fn send_line(
    args: &Produce,
    producer: &Producer,
    headers: &Headers,
    number: u64,
    line: Line<'_>,
    limit: usize,
) -> anyhow::Result<Result<Pending, String>> {
    let text = match line {
        Line::Empty => b"",
        Line::TooLong(bytes) => {
            let (bytes, limit) = (thousands(bytes), thousands(limit as u64));
            return Ok(Err(format!("{bytes} bytes are more than a record may have ({limit}): {SIZE_HINT}")));
        }
        Line::Text(text) => text,
    };
    let (key, value) = match args.parts_of(text) {
        Ok(parts) => parts,
        Err(what) => return Ok(Err(what)),
    };
    let mut record = ProducerRecord::to(&args.topic);
    record.key = key.as_deref().map(Into::into);
    record.value = value.map(Into::into);
    record.partition = args.partition;
    record.headers = (!headers.is_empty()).then(|| headers.into());
    match producer.send(record).await {
        Ok(delivery) => {
            let bytes = size_of(key.as_deref(), value);
            let key = key.filter(|_| args.acks_out).map(|key| String::from_utf8_lossy(&key).into_owned());
            Ok(Ok(Pending { line: number, bytes, key, delivery }))
        }
        Err(e) if e.kind() == ErrorKind::RecordTooLarge => {
            let (bytes, limit) = (thousands(size_of(key.as_deref(), value) as u64), thousands(limit as u64));
            Ok(Err(format!(
                "{bytes} bytes, with what a record takes beside its key and value, are more than {limit}: {SIZE_HINT}"
            )))
        }
        Err(e) if e.kind() == ErrorKind::InvalidRecord => Ok(Err(format!("{e:#}"))),
        Err(e) if e.kind() == ErrorKind::UnknownTopic && !args.create => {
            Err(anyhow::Error::new(e).context(format!("line {number} (--create lets the broker create the topic)")))
        }
        Err(e) => Err(anyhow::Error::new(e).context(format!("line {number}"))),
    }
}

fn size_of(key: Option<&[u8]>, value: Option<&[u8]>) -> usize {
    value.map_or(0, <[u8]>::len) + key.map_or(0, <[u8]>::len)
}

/// Reads stdin on a thread of its own, which ends with the process: a read that waits for a terminal can't be cancelled.
fn read_stdin(limit: usize, raw: bool) -> mpsc::Receiver<io::Result<Chunk>> {
    let (tx, rx) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut stdin = io::BufReader::with_capacity(256 << 10, io::stdin().lock());
        let mut splitter = Splitter::new(limit, raw);
        loop {
            let (chunk, read) = match stdin.fill_buf() {
                Ok([]) => (Ok(splitter.finish()), 0),
                Ok(bytes) => (Ok(splitter.push(bytes)), bytes.len()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => (Err(e), 0),
            };
            stdin.consume(read);
            if tx.blocking_send(chunk).is_err() || read == 0 {
                return;
            }
        }
    });
    rx
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        produce: Produce,
    }

    fn args(line: &[&str]) -> Produce {
        Only::try_parse_from(["produce", "t"].iter().chain(line)).unwrap().produce
    }

    #[test]
    fn compression_of_the_command_line_takes_precedence() {
        let config = |compression| {
            let mut c = ProducerConfig::default();
            c.compression = compression;
            c
        };
        let gzip = |level| Compression::Gzip { level };
        let of = |line: &[&str], set| args(line).producer_config(config(set)).unwrap().compression;
        assert_eq!(of(&[], gzip(7)), gzip(7));
        assert_eq!(of(&["--compression", "none"], gzip(7)), Compression::None);
        assert_eq!(of(&["--compression", "gzip"], gzip(7)), gzip(7));
        assert_eq!(of(&["--compression", "gzip"], Compression::None), gzip(Compression::DEFAULT_GZIP_LEVEL));
        assert_eq!(of(&["--compression-level", "9"], gzip(7)), gzip(9));
        assert_eq!(of(&["--compression", "zstd"], gzip(7)), Compression::Zstd);
        assert_eq!(of(&["--compression", "snappy"], Compression::None), Compression::Snappy);
        assert_eq!(of(&["--compression", "lz4"], Compression::None), Compression::Lz4);
        assert_eq!(of(&[], Compression::Zstd), Compression::Zstd);
        for set in [Compression::None, Compression::Zstd] {
            let e = args(&["--compression-level", "9"]).producer_config(config(set)).unwrap_err();
            assert!(e.is::<Usage>());
        }
    }

    #[test]
    fn the_partitioner_of_the_command_line_takes_precedence() {
        let of = |line: &[&str]| {
            let mut config = ProducerConfig::default();
            config.partitioner = PartitionerKind::RoundRobin;
            args(line).producer_config(config).unwrap().partitioner
        };
        assert_eq!(of(&[]), PartitionerKind::RoundRobin);
        assert_eq!(of(&["--partitioner", "murmur2"]), PartitionerKind::Murmur2);
        assert_eq!(of(&["--partitioner", "consistent_random"]), PartitionerKind::ConsistentRandom);
        let error = Only::try_parse_from(["produce", "t", "--partitioner", "random"]).err().unwrap().to_string();
        assert!(error.contains("allowed is murmur2, consistent_random or round_robin"), "{error}");
    }

    #[test]
    fn a_header_is_split_at_its_first_equals_sign() {
        assert_eq!(header("k=v=w"), Ok(("k".into(), "v=w".into())));
        assert_eq!(header("k="), Ok(("k".into(), String::new())));
        assert!(header("=v").is_err());
        assert!(header("k").is_err());
    }
}
