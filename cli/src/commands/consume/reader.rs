//! Reads, prints and commits.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::time::Duration;

use ailurus::{Admin, Client, Consumer, ConsumerEvent, OffsetReset, Records, StartOffset, TopicPartition};
use ailurus_serve::log_end::{EndCheck, EndOfLog};
use tokio::time::Instant;

use super::left::Left;
use super::{Consume, Missing, format, reachable};
use crate::output::note;
use crate::progress::Progress;
use crate::signals::Shutdown;

/// Maximum time from printing a record to its commit.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two looks at the offsets that the group has committed, of a member without partitions.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub struct Reader {
    admin: Admin,
    pub consumer: Consumer,
    pub group: Option<String>,
    /// Offset of the only record to print, with `--at`.
    only: Option<i64>,
    /// All chosen partitions.
    partitions: Vec<TopicPartition>,
    end: Option<EndOfLog>,
    end_check: EndCheck,
    /// First position of the group in a partition without a committed offset.
    reset: StartOffset,
    left: Option<u64>,
    pub printer: Printer,
    /// Offsets behind the printed records of assigned partitions.
    printed: BTreeMap<TopicPartition, i64>,
    /// Offsets of those that are not committed yet.
    uncommitted: BTreeMap<TopicPartition, i64>,
    commit_at: Instant,
    /// Number of partitions that the group has assigned.
    assigned: usize,
    look_at: Instant,
    /// Assigned partitions whose offsets are not known.
    pub missing: Missing,
}

impl Reader {
    pub fn new(
        client: &Client,
        consumer: Consumer,
        args: &Consume,
        partitions: Vec<TopicPartition>,
        end: Option<EndOfLog>,
    ) -> Self {
        let reset = match client.config().consumer.offset_reset {
            OffsetReset::Latest => StartOffset::Latest,
            // With `None`, a partition without a committed offset ends it with an error.
            _ => StartOffset::Earliest,
        };
        Self {
            admin: Admin::new(client),
            consumer,
            group: args.group.clone(),
            only: args.at.as_ref().map(|at| at.offset),
            partitions,
            end,
            end_check: EndCheck::new(client, note),
            reset,
            left: args.max,
            printer: Printer::new(args.output.json, args.max),
            printed: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
            commit_at: Instant::now(),
            assigned: 0,
            look_at: Instant::now(),
            missing: Missing::new(),
        }
    }

    /// Reads until the end, and returns whether it was reached; a signal is the end only if there is no other. What was printed
    /// is committed, also after an error.
    pub async fn run(&mut self, shutdown: &Shutdown) -> anyhow::Result<bool> {
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
            let is_idle =
                self.group.is_some() && self.assigned == 0 && self.end.as_ref().is_some_and(EndOfLog::is_waiting);
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                () = tokio::time::sleep_until(self.commit_at), if commit_due => self.commit(None).await?,
                () = tokio::time::sleep_until(self.look_at), if is_idle => self.look_at_group().await,
                () = self.end_check.due(), if self.end.is_some() => self.check_end(shutdown).await,
                event = self.consumer.recv() => match event? {
                    ConsumerEvent::Records(records) => self.print(records)?,
                    ConsumerEvent::Assigned(partitions) => self.assigned(partitions).await?,
                    ConsumerEvent::Revoked(revocation) => {
                        self.commit(Some(&revocation.partitions)).await?;
                        self.forget(&revocation.partitions);
                    }
                    ConsumerEvent::Lost(partitions) => {
                        self.printer.progress.note(format_args!(
                            "{} partitions were lost to other members of the group, which will read again what was printed \
                             since the last commit",
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

    /// Ends the wait for partitions if the group has read everything. After an error there is another look later; the
    /// consumer reports errors of the group.
    async fn look_at_group(&mut self) {
        match self.positions(self.partitions.clone()).await {
            Ok(positions) => self.end.iter_mut().for_each(|end| end.on_group_positions(&positions)),
            Err(error) => tracing::debug!(error = format!("{error:#}"), "the group's offsets are not known"),
        }
        self.look_at = Instant::now() + LOOK_INTERVAL;
    }

    async fn check_end(&mut self, shutdown: &Shutdown) {
        if let Some(end) = &mut self.end {
            shutdown.unless_requested(self.end_check.check(end)).await;
        }
    }

    fn print(&mut self, mut records: Records) -> io::Result<()> {
        self.end_check.progressed();
        if let Some(only) = self.only {
            records.records.retain(|record| record.offset == only);
        }
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

    /// Notes the positions of new partitions: the group's committed offsets.
    async fn assigned(&mut self, partitions: Vec<TopicPartition>) -> anyhow::Result<()> {
        tracing::info!(count = partitions.len(), "partitions assigned");
        self.assigned += partitions.len();
        if self.group.is_some() && self.end.is_some() {
            let positions = self.positions(partitions).await?;
            let holds_any = self.assigned > 0;
            self.end
                .iter_mut()
                .for_each(|end| if holds_any { end.assigned(positions.clone()) } else { end.assigned_none() });
        }
        Ok(())
    }

    /// Returns the group's position in each of these partitions; those that are not known are noted as missing.
    async fn positions(&mut self, partitions: Vec<TopicPartition>) -> anyhow::Result<BTreeMap<TopicPartition, i64>> {
        let positions = self.admin.list_offsets_each(&partitions, self.reset).await?;
        let mut positions = reachable(positions, &mut self.missing);
        let Some(group) = &self.group else { return Ok(positions) };
        for offset in self.admin.describe_group(group).await?.offsets {
            let position = positions.get_mut(&TopicPartition::new(offset.topic, offset.partition));
            if let (Some(position), Some(committed)) = (position, offset.committed) {
                *position = committed;
            }
        }
        Ok(positions)
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        self.assigned = self.assigned.saturating_sub(partitions.len());
        for tp in partitions {
            self.uncommitted.remove(tp);
            self.printed.remove(tp);
            if let Some(end) = &mut self.end {
                end.revoked(tp);
            }
        }
    }

    /// Returns the records of assigned partitions that were not printed, as of the last fetch.
    pub fn left_over(&self) -> Vec<Left> {
        let left = self.consumer.assignment().into_iter().filter_map(|partition| {
            let position = self.consumer.position(&partition)?;
            let from = self.printed.get(&partition).copied().unwrap_or(position);
            // Including records that --max cut off.
            let records = self.consumer.lag(&partition)? + position - from;
            (records > 0).then_some(Left { partition, records, from })
        });
        left.collect()
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

pub struct Printer {
    out: BufWriter<Stdout>,
    json: bool,
    pub records: u64,
    pub progress: Progress,
}

impl Printer {
    fn new(json: bool, max: Option<u64>) -> Self {
        let stdout = io::stdout();
        // Records on a terminal show the progress.
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
