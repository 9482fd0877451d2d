//! Deliveries of the records that were sent: acknowledged, printed and counted.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ailurus::Delivery;
use anyhow::Context;
use serde::Serialize;
use tokio::sync::mpsc;

use super::OnError;
use crate::progress::Progress;

/// Maximum number of errors that are printed; the others are only counted.
const MAX_SHOWN_ERRORS: u64 = 20;

/// State of the reading and the acknowledging side.
pub struct State {
    /// True after a failed delivery that stops reading.
    pub stop: AtomicBool,
    /// Number of records given to the producer.
    pub sent: AtomicU64,
    /// Number of them that were acknowledged or failed.
    pub ended: AtomicU64,
    pub progress: Progress,
}

impl State {
    pub fn new(acks_out: bool) -> Self {
        // No progress among lines that are typed, or among acknowledgements.
        let busy_terminal = io::stdin().is_terminal() || (acks_out && io::stdout().is_terminal());
        let progress = if busy_terminal { Progress::hidden() } else { Progress::new("records", None) };
        Self { stop: AtomicBool::new(false), sent: AtomicU64::new(0), ended: AtomicU64::new(0), progress }
    }

    pub fn line_error(&self, number: u64, shown: u64, error: impl fmt::Display) {
        if shown < MAX_SHOWN_ERRORS {
            self.progress.note(format_args!("line {number}: {error}"));
        } else if shown == MAX_SHOWN_ERRORS {
            self.progress.note(format_args!("further lines that failed are counted, not shown"));
        }
    }
}

/// A record that was sent.
pub struct Pending {
    pub line: u64,
    pub bytes: usize,
    /// The key, if it will be printed.
    pub key: Option<String>,
    pub delivery: Delivery,
}

/// Number of records by outcome.
#[derive(Debug, Default)]
pub struct Totals {
    pub records: u64,
    pub bytes: u64,
    pub failed: u64,
}

#[derive(Serialize)]
struct Ack<'a> {
    topic: &'a str,
    partition: i32,
    /// Offset, if the broker returned it.
    offset: Option<i64>,
    key: Option<&'a str>,
}

/// Waits for each record in input order; prints and counts.
pub async fn watch_deliveries(
    mut pending: mpsc::Receiver<Pending>,
    print: bool,
    on_error: OnError,
    state: Arc<State>,
) -> (Totals, anyhow::Result<()>) {
    let mut printed = Ok(());
    let mut totals = Totals::default();
    let mut out = print.then(|| io::BufWriter::new(io::stdout()));
    while let Some(Pending { line, bytes, key, delivery }) = pending.recv().await {
        let outcome = delivery.await;
        state.ended.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(at) => {
                totals.records += 1;
                totals.bytes += bytes as u64;
                state.progress.set(totals.records);
                let ack = Ack { topic: &at.topic, partition: at.partition, offset: at.offset, key: key.as_deref() };
                // If the list can't be written, it ends, and sending goes on.
                if let Some(Err(e)) = out.as_mut().map(|out| write_ack(out, &ack, pending.is_empty())) {
                    printed = list_ended(e);
                    out = None;
                }
            }
            Err(e) => {
                state.line_error(line, totals.failed, format!("{e:#}"));
                totals.failed += 1;
                if on_error == OnError::Stop {
                    state.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    if let Some(Err(e)) = out.map(|mut out| out.flush()) {
        printed = list_ended(e);
    }
    (totals, printed)
}

/// Returns the error that ended the list; a reader that closed it is none.
fn list_ended(e: io::Error) -> anyhow::Result<()> {
    match e.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(e).context("the list of acknowledgements is not complete"),
    }
}

fn write_ack(out: &mut impl Write, ack: &Ack<'_>, flush: bool) -> io::Result<()> {
    serde_json::to_writer(&mut *out, ack)?;
    out.write_all(b"\n")?;
    if flush { out.flush() } else { Ok(()) }
}
