//! `ailurus dlq show`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, BufWriter, Write};

use ailurus::processor::Truncation;
use ailurus::{Client, Timestamp};
use serde_json::json;

use super::log::{DeadLetterRecord, Entry, Filter, Log};
use super::marks::State;
use crate::commands::consume::format;
use crate::exit::Exit;
use crate::output::note;

/// Shows the dead letter at one position.
pub async fn one(client: &Client, topic: &str, at: (i32, i64), json: bool) -> anyhow::Result<Exit> {
    match find(client, topic, at).await? {
        Ok(dead_letter) => print(topic, &[dead_letter], false, json)?,
        Err(exit) => return Ok(exit),
    }
    Ok(Exit::Success)
}

/// Returns the dead letter at one position; if there is none, says so and returns the exit.
pub async fn find(
    client: &Client,
    topic: &str,
    (partition, offset): (i32, i64),
) -> anyhow::Result<Result<DeadLetterRecord, Exit>> {
    let log = Log::open(client, topic, Some(partition)).await?;
    if log.exit() != Exit::Success {
        return Ok(Err(log.exit())); // it is not known whether it exists
    }
    let mut reader = log.records(Some((partition, offset))).await?;
    let mut found = None;
    while let (None, Some((partition, records))) = (&found, reader.next().await?) {
        // The first record from there on decides: an offset may have no record.
        found = records.into_iter().next().map(|r| (r.offset == offset).then(|| log.entry(partition, r)).flatten());
    }
    reader.close().await?;
    let Some(Some(Entry::DeadLetter(dead_letter))) = found else {
        note(format_args!("error: there is no dead letter at {topic}/{partition}@{offset}"));
        return Ok(Err(Exit::NotFound));
    };
    Ok(Ok(*dead_letter))
}

/// Options of `show`.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Number of dead letters.
    pub count: usize,
    /// True to show only those that are open.
    pub open: bool,
    pub by_key: bool,
    pub json: bool,
}

/// Shows the last `count` dead letters that match, by their timestamps.
pub async fn last(
    client: &Client,
    topic: &str,
    filter: &Filter,
    Options { count, open, by_key, json }: Options,
) -> anyhow::Result<Exit> {
    let log = Log::open(client, topic, filter.partition).await?;
    let mut reader = log.records(None).await?;
    let mut last = BTreeMap::<i32, VecDeque<DeadLetterRecord>>::new();
    while let Some((partition, records)) = reader.next().await? {
        let of_partition = last.entry(partition).or_default();
        for record in records {
            let Some(Entry::DeadLetter(mut dead_letter)) = log.entry(partition, record) else { continue };
            if !filter.matches(&dead_letter) || (open && dead_letter.state != State::Open) {
                continue;
            }
            if of_partition.len() == count {
                of_partition.pop_front();
            }
            dead_letter.record = dead_letter.record.detach(); // else it keeps its whole batch in memory
            of_partition.push_back(*dead_letter);
        }
    }
    reader.close().await?;
    let mut all: Vec<_> = last.into_values().flatten().collect();
    all.sort_by_key(|l| (l.record.timestamp, l.partition, l.record.offset));
    let count_before = all.len().saturating_sub(count);
    let shown = &mut all[count_before..];
    if by_key {
        sort_by_key(shown);
    }
    if shown.is_empty() {
        note(format_args!("{topic} has no dead letter that matches"));
    }
    print(topic, shown, by_key, json)?;
    Ok(log.exit())
}

/// Brings those of a key together, in the order of their records; the key whose first one is the
/// oldest is the first.
fn sort_by_key(dead_letters: &mut [DeadLetterRecord]) {
    let mut places = HashMap::new();
    for (i, dead_letter) in dead_letters.iter().enumerate() {
        places.entry(dead_letter.record.key.clone()).or_insert(i);
    }
    dead_letters.sort_by_cached_key(|l| {
        let origin = &l.info.origin;
        let place = places.get(&l.record.key).copied();
        (place, origin.topic.clone(), origin.partition, origin.offset, l.partition, l.record.offset)
    });
}

fn print(topic: &str, dead_letters: &[DeadLetterRecord], by_key: bool, json: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let key = |i: usize| dead_letters.get(i).map(|l| &l.record.key);
    for (i, dead_letter) in dead_letters.iter().enumerate() {
        if json {
            as_json(&mut out, topic, dead_letter)?;
        } else {
            if by_key && (i == 0 || key(i) != key(i - 1)) {
                let count = (i..dead_letters.len()).take_while(|next| key(*next) == key(i)).count();
                let separator = if i > 0 { "\n" } else { "" };
                let of_key = super::dead_letters(count as u64);
                writeln!(out, "{separator}key {}: {of_key}", text(dead_letter.record.key.as_deref()))?;
            }
            if i > 0 {
                out.write_all(b"\n")?;
            }
            as_text(&mut out, topic, dead_letter)?;
        }
    }
    out.flush()
}

fn as_json(out: &mut impl Write, topic: &str, dead_letter: &DeadLetterRecord) -> io::Result<()> {
    let DeadLetterRecord { partition, record, info, state } = dead_letter;
    let (key, key_encoding) = format::encode(record.key.as_deref());
    let (value, value_encoding) = format::encode(record.value.as_deref());
    let origin = &info.origin;
    let mut line = json!({
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "state": state.name(),
        "error": info.error,
        "attempts": info.attempts,
        "firstFailure": info.first_failure.map(|at| format!("{at:.3}")),
        "lastFailure": info.last_failure.map(|at| format!("{at:.3}")),
        "origin": {
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
            "timestamp": origin.timestamp.map(Timestamp::as_millis),
            "group": origin.group,
        },
        "replays": info.replays(),
        "leftOut": left_out(info.truncation),
        "key": key,
        "value": value,
        "headers": format::headers(&info.headers),
    });
    for (name, encoding) in [("keyEncoding", key_encoding), ("valueEncoding", value_encoding)] {
        if let Some(encoding) = encoding {
            line[name] = encoding.into();
        }
    }
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn as_text(out: &mut impl Write, topic: &str, dead_letter: &DeadLetterRecord) -> io::Result<()> {
    let DeadLetterRecord { partition, record, info, state } = dead_letter;
    let origin = &info.origin;
    writeln!(out, "{topic}/{partition}@{}  {}", record.offset, state.name())?;
    write!(out, "  origin    {}/{}@{}", origin.topic, origin.partition, origin.offset)?;
    if let Some(time) = origin.timestamp {
        write!(out, "  {time:.3}")?;
    }
    if let Some(group) = &origin.group {
        write!(out, "  group {}", line(group.as_bytes()))?;
    }
    writeln!(out, "\n  error     {}", line(info.error.as_bytes()))?;
    write!(out, "  attempts  {}", info.attempts)?;
    for (word, time) in [("from", info.first_failure), ("to", info.last_failure)] {
        if let Some(time) = time {
            write!(out, "  {word} {time:.3}")?;
        }
    }
    writeln!(out)?;
    if info.replays() > 0 {
        writeln!(out, "  replays   {}", info.replays())?;
    }
    if info.truncation > Truncation::Nothing {
        writeln!(out, "  left out  {}", left_out(info.truncation).join(", "))?;
    }
    writeln!(out, "  key       {}", text(record.key.as_deref()))?;
    writeln!(out, "  value     {}", text(record.value.as_deref()))?;
    for h in info.headers.iter() {
        writeln!(out, "  header    {} = {}", line(h.key_bytes()), text(h.value()))?;
    }
    Ok(())
}

fn left_out(what: Truncation) -> &'static [&'static str] {
    match what {
        Truncation::Nothing => &[],
        Truncation::Value => &["value"],
        Truncation::ValueAndHeaders => &["value", "headers"],
        Truncation::ValueHeadersAndKey => &["value", "headers", "key"],
        _ => &["more than this version knows"],
    }
}

/// Returns bytes as text without line breaks.
pub fn line(bytes: &[u8]) -> String {
    text(Some(bytes))
}

fn text(bytes: Option<&[u8]>) -> String {
    let mut out = Vec::new();
    _ = format::readable(&mut out, bytes); // a Vec can't fail
    String::from_utf8_lossy(&out).into_owned()
}
