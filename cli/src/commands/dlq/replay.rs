//! `ailurus dlq replay`.

use ailurus::processor::Truncation;
use ailurus::{Acknowledgement, Client, Error, ErrorKind, Record};
use ailurus_serve::dead_letters::{
    Change, DeadLetterRecord, Edit, Entry, Filter, Limits, Lock, Log, Pace, Rate, Ready, Refusal, Replay, Sent, State,
    complete,
};
use ailurus_serve::text::line;
use serde_json::json;
use tokio::time::Instant;

use super::edit::{self, EditArgs, in_editor};
use super::{dead_letters, open, read, show};
use crate::exit::{self, Exit};
use crate::output::{self, note};
use crate::signals::Shutdown;

/// Maximum number of dead letters sent before they are marked.
const CHUNK_RECORDS: usize = 100;
/// Maximum size of those, which may all be in one request; a single one may be larger.
const CHUNK_BYTES: usize = 1 << 20;

pub struct Options {
    pub filter: Filter,
    /// Position of the only dead letter to replay.
    pub at: Option<(i32, i64)>,
    pub edit: EditArgs,
    pub rate: Option<Rate>,
    pub limits: Limits,
    pub yes: bool,
    pub json: bool,
}

pub async fn run(client: &Client, topic: &str, options: Options, shutdown: &Shutdown) -> anyhow::Result<Exit> {
    let mut edit = options.edit.read()?;
    if let Some(at) = options.at {
        let found = async { show::find(client, topic, at).await };
        let Some(found) = read(shutdown, found).await? else { return Ok(Exit::Interrupted) };
        let mut dead_letter = match found {
            Ok(dead_letter) => dead_letter,
            Err(exit) => return Ok(exit),
        };
        // Before the lock is taken: it may take long.
        if options.edit.edit && !edit_value(client, &mut dead_letter, &mut edit, options.yes).await? {
            note(format_args!("the value was not changed: nothing is replayed"));
            return Ok(Exit::Success);
        }
    }
    let lock = if options.yes { Some(Lock::take(client, topic).await?) } else { None };
    let replay = Replay::new(client, lock, options.limits.clone())?;
    let pace = options.rate.map(Pace::new);
    let mut run = Run { client, replay, options, edit, pace, counts: Counts::default(), has_begun: false };
    let result = run.work(topic, shutdown).await;
    // Also after an error.
    if run.has_begun {
        run.sum_up(topic);
    }
    let (closed, refused) = (run.replay.close().await, run.counts.refused);
    // The first error is the one to report: in an outage the others follow from it.
    let exit = match result {
        Err(e) if is_indeterminate(&e) => {
            note(format_args!("error: {}", exit::text(&e)));
            return Ok(Exit::Unreachable);
        }
        result => result?,
    };
    closed?;
    Ok(if exit == Exit::Success && refused > 0 { Exit::Failure } else { exit })
}

/// Opens the value of a dead letter in the editor; returns whether it was changed.
async fn edit_value(
    client: &Client,
    dead_letter: &mut DeadLetterRecord,
    edit: &mut Edit,
    yes: bool,
) -> anyhow::Result<bool> {
    if dead_letter.info.truncation > Truncation::Nothing {
        complete(client, dead_letter).await?;
    }
    let Some((value, file)) = in_editor(dead_letter.record.value.as_deref()).await? else { return Ok(false) };
    edit.value = Some(Some(value));
    if yes {
        std::fs::remove_file(&file)?;
    } else {
        note(format_args!("the edited value is in {0}: --set-value-file {0} --yes replays it", file.display()));
    }
    Ok(true)
}

/// Returns whether the brokers did not respond in time, so that a record may or may not be written.
fn is_indeterminate(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::Indeterminate)
}

struct Run<'a> {
    client: &'a Client,
    replay: Replay,
    options: Options,
    edit: Edit,
    pace: Option<Pace>,
    counts: Counts,
    /// True if the dead letters could be read.
    has_begun: bool,
}

#[derive(Debug, Default)]
struct Counts {
    done: u64,
    refused: u64,
}

impl Run<'_> {
    /// Replays until the end or a signal.
    async fn work(&mut self, topic: &str, shutdown: &Shutdown) -> anyhow::Result<Exit> {
        let opening = open(self.client, topic, self.options.filter.partition);
        let Some((log, complete)) = read(shutdown, opening).await? else { return Ok(Exit::Interrupted) };
        self.has_begun = true;
        let mut reader = log.records(None).await?;
        let mut exit = Exit::Interrupted;
        while let Some(next) = read(shutdown, async { Ok(reader.next().await?) }).await? {
            let Some((partition, records)) = next else {
                exit = complete;
                break;
            };
            // What is replayed is marked once a second, also at a low rate.
            let most = self.options.rate.map_or(CHUNK_RECORDS, |rate| rate.per_second(CHUNK_RECORDS));
            for chunk in chunks(&records, most) {
                if !shutdown.is_requested() {
                    self.chunk(&log, partition, chunk, shutdown).await?;
                }
            }
        }
        reader.close().await?;
        Ok(exit)
    }

    async fn chunk(
        &mut self,
        log: &Log,
        partition: i32,
        records: &[Record],
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let mut all = Vec::new();
        for record in records {
            let Some(Entry::DeadLetter(dead_letter)) = log.entry(partition, record.clone()) else { continue };
            if dead_letter.state != State::Open || !self.options.filter.matches(&dead_letter) {
                continue;
            }
            match self.replay.prepare(log.topic(), *dead_letter, &self.edit).await? {
                Ok(ready) => all.push(ready),
                Err((dead_letter, why)) => {
                    self.counts.refused += 1;
                    report(self.options.json, log.topic(), &dead_letter, None, "refused", Err(&why))?;
                }
            }
        }
        if all.is_empty() {
            return Ok(());
        }
        if self.replay.is_dry() {
            self.counts.done += all.len() as u64;
            return all.iter().try_for_each(|ready| {
                let change = ready.change.as_ref();
                report(self.options.json, log.topic(), &ready.dead_letter, change, "would be replayed", Ok(None))
            });
        }
        self.replay.check().await?;
        let mut sent = Vec::with_capacity(all.len());
        for ready in all {
            if let Some(at) = self.pace.as_mut().map(|pace| pace.next(Instant::now())) {
                let waiting = async {
                    tokio::time::sleep_until(at).await;
                    anyhow::Ok(())
                };
                if read(shutdown, waiting).await?.is_none() {
                    break; // what is sent is marked below
                }
            }
            let delivery = self.replay.send(&ready).await;
            sent.push((ready, delivery));
        }
        let (counts, json) = (&mut self.counts, self.options.json);
        let on_sent = |ready: &Ready, outcome: Sent| match outcome {
            Sent::Acknowledged(ack) => {
                counts.done += 1;
                report(json, log.topic(), &ready.dead_letter, ready.change.as_ref(), "replayed", Ok(Some(&ack)))
            }
            Sent::Refused(why) => {
                counts.refused += 1;
                report(json, log.topic(), &ready.dead_letter, None, "refused", Err(&why))
            }
        };
        self.replay.complete(log, partition, sent, on_sent).await
    }

    fn sum_up(&self, topic: &str) {
        let refused =
            if self.counts.refused > 0 { format!(", {} refused", self.counts.refused) } else { String::new() };
        if self.options.yes {
            note(format_args!("{} of {topic} replayed{refused}", dead_letters(self.counts.done)));
        } else {
            note(format_args!(
                "{} of {topic} would be replayed{refused}; --yes does it",
                dead_letters(self.counts.done)
            ));
        }
    }
}

/// Prints the outcome of a dead letter: the record's new position, or why it is not replayed.
fn report(
    as_json: bool,
    topic: &str,
    dead_letter: &DeadLetterRecord,
    change: Option<&Change>,
    outcome: &str,
    place: Result<Option<&Acknowledgement>, &Refusal>,
) -> anyhow::Result<()> {
    let DeadLetterRecord { partition, record, info, .. } = dead_letter;
    let origin = &info.origin;
    let now = place.ok().flatten();
    if as_json {
        let mut object = json!({
            "topic": topic,
            "partition": partition,
            "offset": record.offset,
            "to": origin.topic,
            "toPartition": now.map(|ack| ack.partition),
            "toOffset": now.and_then(|ack| ack.offset),
            "outcome": outcome,
            "why": place.err().map(ToString::to_string),
            "error": info.error,
        });
        if let Some(change) = change {
            object["edit"] = edit::json(change);
        }
        output::json(&object)?;
        return Ok(());
    }
    let position = format!("{topic}/{partition}@{}", record.offset);
    let to = match now.map(|ack| (ack.partition, ack.offset)) {
        Some((partition, Some(offset))) => format!("{}/{partition}@{offset}", origin.topic),
        _ => origin.topic.clone(),
    };
    match place {
        Err(why) => output::print(format_args!("{position} {outcome}: {why}\n"))?,
        Ok(_) => output::print(format_args!("{position} {outcome} to {to}: {}\n", line(Some(info.error.as_bytes()))))?,
    }
    for text in change.into_iter().flat_map(edit::lines) {
        output::print(format_args!("{text}\n"))?;
    }
    Ok(())
}

/// Splits records into runs of at most `most` and, but for single ones, [`CHUNK_BYTES`].
fn chunks(records: &[Record], most: usize) -> Vec<&[Record]> {
    let size = |r: &Record| r.key.as_ref().map_or(0, |k| k.len()) + r.value.as_ref().map_or(0, |v| v.len());
    let (mut chunks, mut rest) = (Vec::new(), records);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take(most).take_while(|r| {
            bytes += size(r);
            bytes <= CHUNK_BYTES
        });
        let (chunk, behind) = rest.split_at(fit.count().max(1));
        chunks.push(chunk);
        rest = behind;
    }
    chunks
}
