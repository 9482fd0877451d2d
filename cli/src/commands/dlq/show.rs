//! `ailurus dlq show`.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufWriter, Write};

use ailurus::Client;
use ailurus::processor::Truncation;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use super::log::{Entry, Filter, Letter, Log};
use super::marks::State;
use crate::commands::consume::format;
use crate::exit::Exit;
use crate::output::note;

/// Shows the dead letter at one position.
pub async fn one(client: &Client, topic: &str, (partition, offset): (i32, i64), json: bool) -> anyhow::Result<Exit> {
    let log = Log::open(client, topic, Some(partition)).await?;
    if log.exit() != Exit::Success {
        return Ok(log.exit()); // it is not known whether it exists
    }
    let mut reader = log.records(Some((partition, offset))).await?;
    let mut found = None;
    while let (None, Some((partition, records))) = (&found, reader.next().await?) {
        // The first record from there on decides: an offset may have no record.
        found = records.into_iter().next().map(|r| (r.offset == offset).then(|| log.entry(partition, r)).flatten());
    }
    reader.close().await?;
    let Some(Some(Entry::Letter(letter))) = found else {
        note(format_args!("error: there is no dead letter at {topic}/{partition}@{offset}"));
        return Ok(Exit::NotFound);
    };
    print(topic, &[*letter], json)?;
    Ok(Exit::Success)
}

/// Shows the last `count` dead letters that match, by their timestamps.
pub async fn last(
    client: &Client,
    topic: &str,
    filter: &Filter,
    open: bool,
    count: usize,
    json: bool,
) -> anyhow::Result<Exit> {
    let log = Log::open(client, topic, filter.partition).await?;
    let mut reader = log.records(None).await?;
    let mut last = BTreeMap::<i32, VecDeque<Letter>>::new();
    while let Some((partition, records)) = reader.next().await? {
        let of_partition = last.entry(partition).or_default();
        for record in records {
            let Some(Entry::Letter(mut letter)) = log.entry(partition, record) else { continue };
            if !filter.matches(&letter) || (open && letter.state != State::Open) {
                continue;
            }
            if of_partition.len() == count {
                of_partition.pop_front();
            }
            letter.record = letter.record.detach(); // else it keeps its whole batch in memory
            of_partition.push_back(*letter);
        }
    }
    reader.close().await?;
    let mut all: Vec<_> = last.into_values().flatten().collect();
    all.sort_by_key(|l| (l.record.timestamp, l.partition, l.record.offset));
    let shown = &all[all.len().saturating_sub(count)..];
    if shown.is_empty() {
        note(format_args!("{topic} has no dead letter that matches"));
    }
    print(topic, shown, json)?;
    Ok(log.exit())
}

fn print(topic: &str, letters: &[Letter], json: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (i, letter) in letters.iter().enumerate() {
        if json {
            as_json(&mut out, topic, letter)?;
        } else {
            if i > 0 {
                out.write_all(b"\n")?;
            }
            as_text(&mut out, topic, letter)?;
        }
    }
    out.flush()
}

fn as_json(out: &mut impl Write, topic: &str, letter: &Letter) -> io::Result<()> {
    let Letter { partition, record, info, state } = letter;
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
        "firstFailure": info.first_failure.map(rfc3339),
        "lastFailure": info.last_failure.map(rfc3339),
        "origin": {
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
            "timestamp": origin.timestamp,
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

fn as_text(out: &mut impl Write, topic: &str, letter: &Letter) -> io::Result<()> {
    let Letter { partition, record, info, state } = letter;
    let origin = &info.origin;
    writeln!(out, "{topic}/{partition}@{}  {}", record.offset, state.name())?;
    write!(out, "  origin    {}/{}@{}", origin.topic, origin.partition, origin.offset)?;
    if let Some(time) = origin.timestamp.and_then(DateTime::from_timestamp_millis) {
        write!(out, "  {}", rfc3339(time))?;
    }
    if let Some(group) = &origin.group {
        write!(out, "  group {}", line(group.as_bytes()))?;
    }
    writeln!(out, "\n  error     {}", line(info.error.as_bytes()))?;
    write!(out, "  attempts  {}", info.attempts)?;
    for (word, time) in [("from", info.first_failure), ("to", info.last_failure)] {
        if let Some(time) = time {
            write!(out, "  {word} {}", rfc3339(time))?;
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

pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
