//! `ailurus dlq show`.

use std::io::{self, BufWriter, Write};

use ailurus::processor::Truncation;
use ailurus::{Client, Timestamp};
use ailurus_serve::dead_letters::{DeadLetterRecord, Filter, left_out, sort_by_key};
use ailurus_serve::text::line;
use serde_json::json;

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
    let (log, exit) = super::open(client, topic, Some(partition)).await?;
    if exit != Exit::Success {
        return Ok(Err(exit)); // it is not known whether it exists
    }
    let Some(dead_letter) = log.find((partition, offset)).await? else {
        note(format_args!("error: there is no dead letter at {topic}/{partition}@{offset}"));
        return Ok(Err(Exit::NotFound));
    };
    Ok(Ok(dead_letter))
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
    let (log, exit) = super::open(client, topic, filter.partition).await?;
    let mut shown = log.last(filter, count, open, usize::MAX).await?;
    if by_key {
        sort_by_key(&mut shown);
    }
    if shown.is_empty() {
        note(format_args!("{topic} has no dead letter that matches"));
    }
    print(topic, &shown, by_key, json)?;
    Ok(exit)
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
                writeln!(out, "{separator}key {}: {of_key}", line(dead_letter.record.key.as_deref()))?;
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
        write!(out, "  group {}", line(Some(group.as_bytes())))?;
    }
    writeln!(out, "\n  error     {}", line(Some(info.error.as_bytes())))?;
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
    writeln!(out, "  key       {}", line(record.key.as_deref()))?;
    writeln!(out, "  value     {}", line(record.value.as_deref()))?;
    for h in info.headers.iter() {
        writeln!(out, "  header    {} = {}", line(Some(h.key_bytes())), line(h.value()))?;
    }
    Ok(())
}
