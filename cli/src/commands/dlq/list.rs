//! `ailurus dlq list`.

use std::collections::BTreeMap;

use ailurus::{Admin, Client, Error};
use ailurus_serve::dead_letters::{DeadLetterRecord, Entry, State};
use ailurus_serve::text::line;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{self, Table, note};

/// Maximum number of different errors or keys of a topic; the others are counted together.
const MAX_CLASSES: usize = 1000;
const OTHERS: &str = "(other errors)";
const OTHER_KEYS: &str = "(other keys)";
const NO_KEY: &str = "(no key)";

/// Number of dead letters of a topic.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    topic: String,
    letters: u64,
    open: u64,
    replayed: u64,
    discarded: u64,
    /// Number of records that are not dead letters.
    foreign: u64,
    /// True if a partition could not be read.
    partial: bool,
    errors: Vec<Class>,
    /// In place of `errors`, if they are counted by key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Class>,
}

/// Number of dead letters of one origin, and one error or key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Class {
    origin: String,
    /// Key, if they are counted by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The first error; by key, the last one.
    error: String,
    letters: u64,
    open: u64,
    first_failure: Option<String>,
    last_failure: Option<String>,
}

pub async fn run(client: &Client, topics: Vec<String>, suffix: &str, by_key: bool, json: bool) -> anyhow::Result<Exit> {
    let all = if topics.is_empty() {
        let all = Admin::new(client).list_topics().await?;
        count_existing(client, all.into_iter().map(|t| t.name).filter(|name| name.ends_with(suffix)), by_key).await?
    } else {
        let mut all = Vec::new();
        for topic in topics {
            all.push(count(client, &topic, by_key).await?);
        }
        all
    };
    let exit = if all.iter().any(|c| c.partial) { Exit::Failure } else { Exit::Success };
    if json {
        output::json(&all)?;
        return Ok(exit);
    }
    if all.is_empty() {
        note(format_args!("there is no topic whose name ends in {suffix}"));
    }
    output::print(table(&all, by_key))?;
    Ok(exit)
}

/// Counts the dead letters of listed topics; one that was deleted since is left out.
async fn count_existing(
    client: &Client,
    topics: impl Iterator<Item = String>,
    by_key: bool,
) -> anyhow::Result<Vec<Counts>> {
    let mut all = Vec::new();
    for topic in topics {
        match count(client, &topic, by_key).await {
            Err(e) if e.downcast_ref::<Error>().is_some_and(Error::is_unknown_topic) => {
                note(format_args!("{topic} is left out: it was deleted meanwhile"));
            }
            counts => all.push(counts?),
        }
    }
    Ok(all)
}

async fn count(client: &Client, topic: &str, by_key: bool) -> anyhow::Result<Counts> {
    let (log, exit) = super::open(client, topic, None).await?;
    let mut counts = Counts { topic: topic.to_owned(), partial: exit != Exit::Success, ..Counts::default() };
    let mut classes = BTreeMap::new();
    let mut reader = log.records(None).await?;
    while let Some((partition, records)) = reader.next().await? {
        for record in records {
            match log.entry(partition, record) {
                Some(Entry::DeadLetter(dead_letter)) => {
                    counts.letters += 1;
                    *match dead_letter.state {
                        State::Open => &mut counts.open,
                        State::Replayed => &mut counts.replayed,
                        State::Discarded => &mut counts.discarded,
                    } += 1;
                    add_to_class(&mut classes, &dead_letter, by_key);
                }
                Some(Entry::Foreign) => counts.foreign += 1,
                None => {}
            }
        }
    }
    reader.close().await?;
    let mut classes: Vec<_> = classes.into_values().collect();
    classes.sort_by_key(|c| std::cmp::Reverse((c.open, c.letters)));
    *if by_key { &mut counts.keys } else { &mut counts.errors } = classes;
    Ok(counts)
}

fn add_to_class(classes: &mut BTreeMap<(String, String), Class>, dead_letter: &DeadLetterRecord, by_key: bool) {
    let DeadLetterRecord { record, info, .. } = dead_letter;
    let origin = info.origin.topic.clone();
    let (name, others) = match by_key {
        true => (record.key.as_deref().map_or_else(|| NO_KEY.to_owned(), |key| line(Some(key))), OTHER_KEYS),
        false => (class_of(&info.error), OTHERS),
    };
    let mut class = (origin.clone(), name);
    if classes.len() >= MAX_CLASSES && !classes.contains_key(&class) {
        class.1 = others.to_owned();
    }
    let is_others = class.1 == others;
    let error = if is_others { others.to_owned() } else { info.error.clone() };
    let key = by_key.then(|| class.1.clone());
    let new = Class { origin, key, error: error.clone(), letters: 0, open: 0, first_failure: None, last_failure: None };
    let class = classes.entry(class).or_insert(new);
    if by_key {
        class.error = error;
    }
    class.letters += 1;
    class.open += u64::from(dead_letter.state == State::Open);
    let first = info.first_failure.map(|at| format!("{at:.3}"));
    let last = info.last_failure.map(|at| format!("{at:.3}"));
    class.first_failure = [class.first_failure.take(), first].into_iter().flatten().min();
    class.last_failure = class.last_failure.take().max(last);
}

/// Returns an error without its numbers, such as offsets and ids.
fn class_of(error: &str) -> String {
    let mut class = String::with_capacity(error.len());
    for c in error.chars() {
        match c {
            '0'..='9' if class.ends_with('#') => {}
            '0'..='9' => class.push('#'),
            c => class.push(c),
        }
    }
    class
}

fn table(all: &[Counts], by_key: bool) -> String {
    if by_key {
        return table_by_key(all);
    }
    let mut table = Table::new(["TOPIC", "DEAD-LETTERS", "OPEN", "ORIGIN", "FIRST", "LAST", "ERROR"]);
    let mut foreign = String::new();
    for counts in all {
        let none = || "-".to_owned();
        if counts.errors.is_empty() {
            table.row([counts.topic.clone(), "0".into(), "0".into(), none(), none(), none(), none()]);
        }
        for c in &counts.errors {
            table.row([
                counts.topic.clone(),
                c.letters.to_string(),
                c.open.to_string(),
                c.origin.clone(),
                output::or_dash(c.first_failure.as_ref()),
                output::or_dash(c.last_failure.as_ref()),
                line(Some(c.error.as_bytes())),
            ]);
        }
        if counts.foreign > 0 {
            foreign += &format!("{}: {} records are no dead letters\n", counts.topic, counts.foreign);
        }
    }
    format!("{table}{foreign}")
}

fn table_by_key(all: &[Counts]) -> String {
    let mut table = Table::new(["TOPIC", "KEY", "DEAD-LETTERS", "OPEN", "ORIGIN", "FIRST", "LAST", "LAST-ERROR"]);
    for (topic, c) in all.iter().flat_map(|counts| counts.keys.iter().map(|c| (&counts.topic, c))) {
        table.row([
            topic.clone(),
            output::or_dash(c.key.as_ref()),
            c.letters.to_string(),
            c.open.to_string(),
            c.origin.clone(),
            output::or_dash(c.first_failure.as_ref()),
            output::or_dash(c.last_failure.as_ref()),
            line(Some(c.error.as_bytes())),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use ailurus::Config;
    use ailurus_broker::{Broker, BrokerConfig};

    use super::*;

    #[test]
    fn errors_that_differ_in_numbers_are_of_one_class() {
        let at = |n: u32| format!("can't read order.paid from orders/{n} at offset {}: no", n * 37);
        assert_eq!(class_of(&at(1)), class_of(&at(2000)));
        assert_ne!(class_of("a1b"), class_of("ab"));
    }

    #[tokio::test]
    async fn a_topic_that_is_deleted_meanwhile_is_left_out() -> anyhow::Result<()> {
        let broker = Broker::start(BrokerConfig::default()).await?;
        let client = Client::connect(Config::builder().brokers(broker.bootstrap()).build()?).await?;
        Admin::new(&client).create_topic("there.dlq", 1, None).await?;
        let listed = ["gone.dlq", "there.dlq"].map(str::to_owned).into_iter();
        let counted = count_existing(&client, listed, false).await?;
        assert_eq!(counted.iter().map(|c| c.topic.as_str()).collect::<Vec<_>>(), ["there.dlq"]);
        client.close().await;
        Ok(())
    }
}
