//! Reads a dead-letter topic from its beginning to its end at the start.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ailurus::admin::TopicInfo;
use ailurus::processor::{DeadLetter, Truncation};
use ailurus::{
    Admin, Client, Consumer, ConsumerEvent, Error, ErrorKind, Record, Result, StartOffset, Timestamp, TopicPartition,
};

use super::marks::{self, Marks, State};
use crate::log_end::{EndCheck, EndOfLog, Note};

/// Chooses dead letters: all that is set must match.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Text in the error.
    pub error: Option<String>,
    /// Key of the record.
    pub key: Option<Vec<u8>>,
    /// Topic that the record came from.
    pub origin: Option<String>,
    /// Group whose handler failed.
    pub group: Option<String>,
    /// Partition of the dead-letter topic.
    pub partition: Option<i32>,
    /// First offset in the dead-letter topic.
    pub from_offset: Option<i64>,
    /// Offset in the dead-letter topic before which they are.
    pub before_offset: Option<i64>,
    /// Earliest time of the last failure.
    pub since: Option<Timestamp>,
    /// Time before which the last failure was.
    pub before: Option<Timestamp>,
}

impl Filter {
    /// Returns the filter of one position.
    pub fn at(partition: i32, offset: i64) -> Self {
        let before_offset = Some(offset.saturating_add(1));
        Self { partition: Some(partition), from_offset: Some(offset), before_offset, ..Self::default() }
    }

    /// Returns whether it chooses a dead letter.
    pub fn matches(&self, dead_letter: &DeadLetterRecord) -> bool {
        // Without the time of its failure, the time at which it was written.
        let failed = dead_letter.info.last_failure.unwrap_or(dead_letter.record.timestamp);
        let offset = dead_letter.record.offset;
        self.error.as_ref().is_none_or(|text| dead_letter.info.error.contains(text))
            && self.key.as_ref().is_none_or(|key| dead_letter.record.key.as_deref() == Some(key.as_slice()))
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
    /// Partition of the dead-letter topic.
    pub partition: i32,
    /// The dead letter itself, at its offset in the dead-letter topic.
    pub record: Record,
    /// Contents of its headers.
    pub info: DeadLetter,
    /// Open, replayed or discarded.
    pub state: State,
}

/// Record of a dead-letter topic.
#[derive(Debug)]
pub enum Entry {
    /// A dead letter.
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
    missing: Vec<(TopicPartition, String)>,
    note: Note,
}

impl Log {
    /// Opens the topic, or one partition of it, and reads the marks. Partitions that can't be read are [`missing`](Self::missing).
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if the topic or the partition does not exist, also if it is deleted meanwhile; those of the
    /// brokers.
    pub async fn open(client: &Client, topic: &str, only: Option<i32>, note: Note) -> Result<Self> {
        let admin = Admin::new(client);
        let all = partitions(&admin, topic, only).await?;
        let (starts, ends) = tokio::try_join!(
            admin.list_offsets_each(&all, StartOffset::Earliest),
            admin.list_offsets_each(&all, StartOffset::Latest),
        )?;
        if let Some(error) = deleted_topic(&ends).or_else(|| deleted_topic(&starts)) {
            return Err(error);
        }
        // Dead letters and their marks are in the same partition: one that can't be read does not affect the others.
        let mut missing: Vec<_> =
            ends.iter().filter_map(|(tp, end)| Some((tp.clone(), format!("{:#}", end.as_ref().err()?)))).collect();
        let known =
            |offsets: BTreeMap<_, Result<i64>>| offsets.into_iter().filter_map(|(tp, o)| Some((tp, o.ok()?))).collect();
        let (starts, mut ends): (BTreeMap<TopicPartition, i64>, BTreeMap<TopicPartition, i64>) =
            (known(starts), known(ends));
        ends.retain(|tp, end| match starts.get(tp) {
            // It would look empty.
            Some(start) if start > end => {
                missing.push((tp.clone(), format!("{tp}: the broker returned start {start} and end {end}")));
                false
            }
            Some(_) => true,
            None => false, // deletion needs the first offset
        });
        let (client, topic) = (client.clone(), topic.to_owned());
        let mut log = Self { client, topic, starts, ends, marks: Marks::default(), missing, note };
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

    /// Returns the name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the partitions that can't be read, with the reasons.
    pub fn missing(&self) -> &[(TopicPartition, String)] {
        &self.missing
    }

    /// Returns the dead letter at one position, if there is one.
    ///
    /// # Errors
    /// Those of the brokers.
    pub async fn find(&self, (partition, offset): (i32, i64)) -> Result<Option<DeadLetterRecord>> {
        let mut reader = self.records(Some((partition, offset))).await?;
        let mut found = None;
        while let (None, Some((partition, records))) = (&found, reader.next().await?) {
            // The first record from there on decides: an offset may have no record.
            found =
                records.into_iter().next().map(|r| (r.offset == offset).then(|| self.entry(partition, r)).flatten());
        }
        reader.close().await?;
        Ok(match found.flatten() {
            Some(Entry::DeadLetter(dead_letter)) => Some(*dead_letter),
            _ => None,
        })
    }

    /// Returns the last `count` dead letters that match, by their timestamps; `open` for those that are neither replayed nor
    /// discarded alone. Of a value the first `max_value` bytes are kept.
    ///
    /// # Errors
    /// Those of the brokers.
    pub async fn last(
        &self,
        filter: &Filter,
        count: usize,
        open: bool,
        max_value: usize,
    ) -> Result<Vec<DeadLetterRecord>> {
        let mut reader = self.records(None).await?;
        let mut last = BTreeMap::<i32, VecDeque<DeadLetterRecord>>::new();
        while let Some((partition, records)) = reader.next().await? {
            let of_partition = last.entry(partition).or_default();
            for record in records {
                let Some(Entry::DeadLetter(mut dead_letter)) = self.entry(partition, record) else { continue };
                if !filter.matches(&dead_letter) || (open && dead_letter.state != State::Open) {
                    continue;
                }
                if of_partition.len() == count {
                    of_partition.pop_front();
                }
                if let Some(value) = &mut dead_letter.record.value {
                    value.truncate(max_value);
                }
                dead_letter.record = dead_letter.record.detach(); // else it keeps its whole batch in memory
                of_partition.push_back(*dead_letter);
            }
        }
        reader.close().await?;
        let mut all: Vec<_> = last.into_values().flatten().collect();
        all.sort_by_key(|l| (l.record.timestamp, l.partition, l.record.offset));
        Ok(all.split_off(all.len().saturating_sub(count)))
    }

    /// Returns each partition with its first offset and its end.
    pub fn bounds(&self) -> impl Iterator<Item = (i32, i64, i64)> + '_ {
        let start = |tp| self.starts.get(tp).copied().unwrap_or(0);
        self.ends.iter().map(move |(tp, end)| (tp.partition, start(tp), *end))
    }

    /// Returns a reader of all records, or of those from a position on.
    ///
    /// # Errors
    /// Those of the brokers.
    pub async fn records(&self, from: Option<(i32, i64)>) -> Result<Reader> {
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
        Ok(Reader { consumer, end, end_check: EndCheck::new(&self.client, self.note), ends: self.ends.clone() })
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
    ///
    /// # Errors
    /// Those of the brokers.
    pub async fn next(&mut self) -> Result<Option<(i32, Vec<Record>)>> {
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

    /// Ends the reading.
    ///
    /// # Errors
    /// Those of the consumer.
    pub async fn close(self) -> Result<()> {
        match self.consumer {
            Some(consumer) => consumer.close().await,
            None => Ok(()),
        }
    }
}

/// Returns the partitions of a topic, or the one chosen, which must exist.
async fn partitions(admin: &Admin, topic: &str, only: Option<i32>) -> Result<Vec<TopicPartition>> {
    let count = admin.describe_topic(topic).await?.partitions.len();
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    match only {
        Some(partition) if !(0..count).contains(&partition) => {
            let what = format!("{topic} has no partition {partition}: it has {count}, counted from 0");
            Err(Error::new(ErrorKind::UnknownTopic, what))
        }
        Some(partition) => Ok(vec![TopicPartition::new(topic, partition)]),
        None => Ok((0..count).map(|p| TopicPartition::new(topic, p)).collect()),
    }
}

/// Returns the error of a topic that was deleted since it was listed: none of its partitions exists.
pub fn deleted_topic(offsets: &BTreeMap<TopicPartition, Result<i64>>) -> Option<Error> {
    let missing = |o: &Result<i64>| o.as_ref().err().filter(|e| e.is_unknown_topic()).cloned();
    let errors: Option<Vec<_>> = offsets.values().map(missing).collect();
    errors?.into_iter().next()
}

/// Brings the dead letters of a key together, in the order of their records; the key whose first one is the oldest is the
/// first.
pub fn sort_by_key(dead_letters: &mut [DeadLetterRecord]) {
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

/// Returns the parts of its record that a dead letter lacks.
pub fn left_out(what: Truncation) -> &'static [&'static str] {
    match what {
        Truncation::Nothing => &[],
        Truncation::Value => &["value"],
        Truncation::ValueAndHeaders => &["value", "headers"],
        Truncation::ValueHeadersAndKey => &["value", "headers", "key"],
        _ => &["more than this version knows"],
    }
}

/// Returns the dead-letter topics with the number of records in the log of each, where all of its leaders respond. One that was
/// deleted since it was listed is left out.
pub async fn count_records(admin: &Admin, topics: &[TopicInfo], suffix: &str) -> Vec<(String, Option<u64>)> {
    let mut found = Vec::new();
    for topic in topics.iter().filter(|t| t.name.ends_with(suffix)) {
        let partitions: Vec<_> =
            topic.partitions.iter().map(|p| TopicPartition::new(topic.name.as_str(), p.partition)).collect();
        let at = |place| admin.list_offsets_each(&partitions, place);
        let ends = tokio::try_join!(at(StartOffset::Earliest), at(StartOffset::Latest));
        if ends.as_ref().is_ok_and(|(_, ends)| deleted_topic(ends).is_some()) {
            continue;
        }
        let count = ends.ok().and_then(|(starts, ends)| {
            let records = |p| {
                let (start, end) = (starts.get(p)?.as_ref().ok()?, ends.get(p)?.as_ref().ok()?);
                u64::try_from(end - start).ok()
            };
            partitions.iter().map(records).sum::<Option<u64>>()
        });
        found.push((topic.name.clone(), count));
    }
    found
}
