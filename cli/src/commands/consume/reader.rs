//! Reads, prints and commits.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::time::Duration;

use ailurus::{Admin, Client, Consumer, ConsumerEvent, OffsetReset, Records, StartOffset, TopicPartition};
use tokio::time::Instant;

use super::end::{EndCheck, EndOfLog};
use super::left::Left;
use super::{Consume, Missing, format, reachable};
use crate::progress::Progress;
use crate::signals::Shutdown;

/// How long printed records may wait for their commit.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two looks at the offsets that the group has committed, of a member without partitions.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub struct Reader {
    admin: Admin,
    pub consumer: Consumer,
    pub group: Option<String>,
    /// The one offset to print, if only one is wanted.
    only: Option<i64>,
    /// All partitions that were asked for.
    partitions: Vec<TopicPartition>,
    end: Option<EndOfLog>,
    end_check: EndCheck,
    /// Where the group begins in a partition for which it has committed nothing.
    reset: StartOffset,
    left: Option<u64>,
    pub printer: Printer,
    /// Offsets behind what was printed of the partitions that are ours.
    printed: BTreeMap<TopicPartition, i64>,
    /// Offsets behind what was printed, not committed yet.
    uncommitted: BTreeMap<TopicPartition, i64>,
    commit_at: Instant,
    /// Number of partitions that the group has assigned to us, as far as we were told.
    assigned: usize,
    look_at: Instant,
    /// Partitions that were assigned and could not be asked where they begin.
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
            // With none a partition without a commit ends it with an error.
            OffsetReset::Earliest | OffsetReset::None => StartOffset::Earliest,
        };
        Self {
            admin: Admin::new(client),
            consumer,
            group: args.group.clone(),
            only: args.at.as_ref().map(|at| at.offset),
            partitions,
            end,
            end_check: EndCheck::new(client),
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

    /// Reads until the end that was asked for, and tells whether it was reached: a signal is the end only where no other
    /// was asked for. Whatever ends it, what was printed is committed.
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

    /// Ends the wait for partitions if the other members have left nothing to read. An error only means another look: what
    /// is wrong with the group, the consumer reports.
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

    /// Notes where the new partitions begin: at what the group has committed.
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

    /// Returns where the group goes on in each of these partitions; those that can't be asked are noted as missing.
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

    /// Returns what can be read of our partitions, as of the last fetch, and was not printed.
    pub fn left_over(&self) -> Vec<Left> {
        let left = self.consumer.assignment().into_iter().filter_map(|partition| {
            let position = self.consumer.position(&partition)?;
            let from = self.printed.get(&partition).copied().unwrap_or(position);
            // What was handed to us and cut off by --max, too.
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
