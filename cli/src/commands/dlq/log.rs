//! Reads a dead-letter topic from its beginning to its end at the start.

use std::collections::BTreeMap;

use ailurus::processor::DeadLetter;
use ailurus::{Admin, Client, Consumer, ConsumerEvent, Record, StartOffset, Timestamp, TopicPartition};
use clap::Args;

use super::marks::{self, Marks, State};
use crate::commands::consume::end::{EndCheck, EndOfLog};
use crate::exit::Exit;
use crate::output;
use crate::place::time;
use crate::selection::{Selection, deleted_topic};

/// Options that choose dead letters.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options that choose dead letters (all must match)")]
pub struct Filter {
    /// Text in the error.
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// Key of the record.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Topic that the record came from.
    #[arg(long, value_name = "TOPIC")]
    pub origin: Option<String>,
    /// Group whose handler failed.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Partition of the dead-letter topic.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// First offset in the dead-letter topic.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub from_offset: Option<i64>,
    /// Offset in the dead-letter topic before which they are.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub before_offset: Option<i64>,
    /// Earliest time of the last failure: so long ago (-5m, 2h), a date, or a time such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub since: Option<Timestamp>,
    /// Time before which the last failure was.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub before: Option<Timestamp>,
}

impl Filter {
    /// Returns the filter of one position.
    pub fn at(partition: i32, offset: i64) -> Self {
        let before_offset = Some(offset.saturating_add(1));
        Self { partition: Some(partition), from_offset: Some(offset), before_offset, ..Self::default() }
    }

    pub fn matches(&self, dead_letter: &DeadLetterRecord) -> bool {
        // Without the time of its failure, the time at which it was written.
        let failed = dead_letter.info.last_failure.unwrap_or(dead_letter.record.timestamp);
        let offset = dead_letter.record.offset;
        self.error.as_ref().is_none_or(|text| dead_letter.info.error.contains(text))
            && self.key.as_ref().is_none_or(|key| dead_letter.record.key.as_deref() == Some(key.as_bytes()))
            && self.origin.as_ref().is_none_or(|topic| dead_letter.info.origin.topic == *topic)
            && self.group.as_ref().is_none_or(|group| dead_letter.info.origin.group.as_ref() == Some(group))
            && self.partition.is_none_or(|p| p == dead_letter.partition)
            && self.from_offset.is_none_or(|from| offset >= from)
            && self.before_offset.is_none_or(|before| offset < before)
            && self.since.is_none_or(|since| failed >= since)
            && self.before.is_none_or(|before| failed < before)
    }
}

/// A dead letter and its position.
#[derive(Debug, Clone)]
pub struct DeadLetterRecord {
    pub partition: i32,
    pub record: Record,
    pub info: DeadLetter,
    pub state: State,
}

/// Record of a dead-letter topic.
#[derive(Debug)]
pub enum Entry {
    DeadLetter(Box<DeadLetterRecord>),
    /// A record that is not a dead letter.
    Foreign,
}

/// A dead-letter topic, as of its opening.
#[derive(Debug)]
pub struct Log {
    client: Client,
    topic: String,
    starts: BTreeMap<TopicPartition, i64>,
    ends: BTreeMap<TopicPartition, i64>,
    marks: Marks,
    is_partial: bool,
}

impl Log {
    /// Opens the topic, or one partition of it, and reads the marks. A topic that is deleted meanwhile is an error like one
    /// that never existed.
    pub async fn open(client: &Client, topic: &str, only: Option<i32>) -> anyhow::Result<Self> {
        let admin = Admin::new(client);
        let all = Selection::new(topic, only.as_slice()).find(&admin).await?;
        let (starts, ends) = tokio::try_join!(
            admin.list_offsets_each(&all, StartOffset::Earliest),
            admin.list_offsets_each(&all, StartOffset::Latest),
        )?;
        if let Some(error) = deleted_topic(&ends).or_else(|| deleted_topic(&starts)) {
            return Err(error.into());
        }
        // Dead letters and their marks are in the same partition: one that can't be read does not affect the others.
        let mut unknown: Vec<_> =
            ends.iter().filter_map(|(tp, end)| Some((tp.clone(), format!("{:#}", end.as_ref().err()?)))).collect();
        let known = |offsets: BTreeMap<_, ailurus::Result<i64>>| {
            offsets.into_iter().filter_map(|(tp, o)| Some((tp, o.ok()?))).collect()
        };
        let (starts, mut ends): (BTreeMap<TopicPartition, i64>, BTreeMap<TopicPartition, i64>) =
            (known(starts), known(ends));
        ends.retain(|tp, end| match starts.get(tp) {
            // It would look empty.
            Some(start) if start > end => {
                unknown.push((tp.clone(), format!("{tp}: the broker returned start {start} and end {end}")));
                false
            }
            Some(_) => true,
            None => false, // deletion needs the first offset
        });
        let is_partial = output::note_missing("dead letters can't be read", &unknown);
        let (client, topic) = (client.clone(), topic.to_owned());
        let mut log = Self { client, topic, starts, ends, marks: Marks::default(), is_partial };
        let mut marks = Marks::default();
        let mut reader = log.records(None).await?;
        while let Some((partition, records)) = reader.next().await? {
            let found = records.iter().filter_map(|r| marks::parse(&r.headers));
            found.for_each(|m| marks.add(partition, m));
        }
        reader.close().await?;
        log.marks = marks;
        Ok(log)
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the exit of a command that has handled all that could be read.
    pub fn exit(&self) -> Exit {
        if self.is_partial { Exit::Failure } else { Exit::Success }
    }

    /// Returns each partition with its first offset and its end.
    pub fn bounds(&self) -> impl Iterator<Item = (i32, i64, i64)> + '_ {
        let start = |tp| self.starts.get(tp).copied().unwrap_or(0);
        self.ends.iter().map(move |(tp, end)| (tp.partition, start(tp), *end))
    }

    /// Returns a reader of all records, or of those from a position on.
    pub async fn records(&self, from: Option<(i32, i64)>) -> anyhow::Result<Reader> {
        let mut starts = self.starts.clone();
        if let Some((partition, offset)) = from {
            starts.retain(|tp, start| tp.partition == partition && *start <= offset);
            starts.values_mut().for_each(|start| *start = offset);
        }
        let mut end = EndOfLog::new(self.ends.clone());
        starts.retain(|tp, start| self.ends.get(tp).is_some_and(|end| end > start));
        end.assigned(starts.clone());
        let consumer = if starts.is_empty() {
            None
        } else {
            let from = starts.into_iter().map(|(tp, offset)| (tp, StartOffset::Offset(offset)));
            Some(self.client.reader().assign(from).await?)
        };
        Ok(Reader { consumer, end, end_check: EndCheck::new(&self.client), ends: self.ends.clone() })
    }

    /// Returns the entry in a record; `None` for a mark.
    pub fn entry(&self, partition: i32, record: Record) -> Option<Entry> {
        if marks::parse(&record.headers).is_some() {
            return None;
        }
        let Some(info) = DeadLetter::parse(&record.headers) else { return Some(Entry::Foreign) };
        let state = self.marks.state(partition, record.offset);
        Some(Entry::DeadLetter(Box::new(DeadLetterRecord { partition, record, info, state })))
    }
}

/// Reads to the end that was found before.
#[derive(Debug)]
pub struct Reader {
    consumer: Option<Consumer>,
    end: EndOfLog,
    end_check: EndCheck,
    ends: BTreeMap<TopicPartition, i64>,
}

impl Reader {
    /// Returns some records of a partition, in order; `None` at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<(i32, Vec<Record>)>> {
        let Some(consumer) = &mut self.consumer else { return Ok(None) };
        while !self.end.is_reached() {
            let event = tokio::select! {
                event = consumer.recv() => event?,
                () = self.end_check.due() => {
                    self.end_check.check(&mut self.end).await;
                    continue;
                }
            };
            if let ConsumerEvent::Records(mut records) = event {
                self.end_check.progressed();
                let tp = records.topic_partition();
                let end = self.ends.get(&tp).copied().unwrap_or(0);
                self.end.advanced(&tp, records.next_offset);
                let mut records = std::mem::take(&mut records.records);
                records.retain(|r| r.offset < end);
                return Ok(Some((tp.partition, records)));
            }
        }
        Ok(None)
    }

    pub async fn close(self) -> anyhow::Result<()> {
        match self.consumer {
            Some(consumer) => Ok(consumer.close().await?),
            None => Ok(()),
        }
    }
}
