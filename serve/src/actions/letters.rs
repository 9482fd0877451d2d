//! Dead letters: looked at, edited, replayed and discarded, as `ailurus dlq` does.

use std::collections::BTreeSet;
use std::time::Duration;

use ailurus::config::Acks;
use ailurus::processor::Truncation;
use ailurus::{Admin, Client};
use axum::extract::{OriginalUri, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::context::Context;
use super::form::{Form, Posted};
use super::letter_view;
use super::payload::Encoding;
use super::{Actions, to_the_end};
use crate::control::Refusal;
use crate::dead_letters::{
    self, DEFAULT_MAX_REPLAYS, DeadLetterRecord, Edit, Filter, Limits, Lock, Log, Offsets, Ready, Replay, Sent,
    State as Is, complete, count_records, sort_by_key,
};
use crate::log_end::Note;
use crate::text::for_operators;

/// Maximum number of dead letters of a list, and of one action.
pub(super) const MAX_LETTERS: usize = 100;
/// Bytes of a value that a list needs: it shows none.
const LISTED_VALUE: usize = 0;
/// Maximum time for closing a producer, all of whose records have been acknowledged.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Notes of the reader go to the log: nobody sees stderr.
const NOTE: Note = |text| tracing::debug!("{text}");

/// Position in a dead-letter topic.
type At = (i32, i64);

pub(super) async fn topics(State(actions): State<Actions>, context: Context) -> Response {
    let suffix = &actions.client().config().processor.dead_letter_suffix;
    let reading = async {
        let admin = Admin::new(actions.client());
        let topics = admin.list_topics().await?;
        Ok(count_records(&admin, &topics, suffix).await)
    };
    match actions.read("the topics", reading).await {
        Ok(topics) => context.page("Dead letters", &letter_view::topics(&context, &topics, suffix)),
        Err(e) => context.refused(&e),
    }
}

/// Selection of a list.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) all: bool,
    pub(super) by_key: bool,
    pub(super) error: Option<String>,
    pub(super) key: Option<String>,
}

impl Choice {
    fn of(uri: &Uri) -> Self {
        let query = Form::parse(uri.query().unwrap_or_default());
        let text = |name| query.text(name).map(str::to_owned);
        Self {
            all: query.get("all").is_some(),
            by_key: query.get("by-key").is_some(),
            error: text("error"),
            key: text("key"),
        }
    }
}

pub(super) async fn list(
    State(actions): State<Actions>,
    context: Context,
    Path(topic): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Response {
    let choice = Choice::of(&uri);
    let reading = async {
        let log = open(actions.client(), &topic, None).await?;
        let key = choice.key.clone().map(String::into_bytes);
        let filter = Filter { error: choice.error.clone(), key, ..Filter::default() };
        let mut found = log.last(&filter, MAX_LETTERS, !choice.all, LISTED_VALUE).await?;
        if choice.by_key {
            sort_by_key(&mut found);
        } else {
            found.reverse(); // the newest first
        }
        Ok((found, log.missing().to_vec()))
    };
    match checked(&actions, &topic, reading).await {
        Ok((found, missing)) => context.page(&topic, &letter_view::list(&context, &topic, &choice, &found, &missing)),
        Err(e) => context.refused(&e),
    }
}

pub(super) async fn one(
    State(actions): State<Actions>,
    context: Context,
    Path((topic, partition, offset)): Path<(String, String, String)>,
) -> Response {
    let found = async {
        let at = place(&format!("{partition}/{offset}"))?;
        let reading = async {
            let found = open(actions.client(), &topic, Some(at.0)).await?.find(at).await?;
            let Some(mut dead_letter) = found else { return Ok(None) };
            let mut is_gone = false;
            if dead_letter.info.truncation > Truncation::Nothing {
                complete(actions.client(), &mut dead_letter).await?;
                is_gone = dead_letter.info.truncation > Truncation::Nothing;
            }
            Ok(Some((dead_letter, is_gone)))
        };
        checked(&actions, &topic, reading).await?.ok_or_else(|| gone(&topic, at))
    };
    match found.await {
        Ok((dead_letter, is_incomplete)) => {
            let title = format!("{topic}/{partition}@{offset}");
            context.page(&title, &letter_view::one(&context, &topic, &dead_letter, is_incomplete))
        }
        Err(e) => context.refused(&e),
    }
}

pub(super) async fn replay(
    State(actions): State<Actions>,
    context: Context,
    Path(topic): Path<String>,
    Posted(form): Posted,
) -> Response {
    let acting = async {
        let chosen = chosen(&actions, &topic, &form)?;
        let edit = edit(&form, chosen.len())?;
        let (client, topic) = (actions.client().clone(), topic.clone());
        to_the_end(async move { replay_all(&client, &topic, &chosen, &edit).await }).await
    };
    context.respond(&list_path(&topic), acting.await)
}

pub(super) async fn discard(
    State(actions): State<Actions>,
    context: Context,
    Path(topic): Path<String>,
    Posted(form): Posted,
) -> Response {
    let acting = async {
        let chosen = chosen(&actions, &topic, &form)?;
        let (client, topic) = (actions.client().clone(), topic.clone());
        to_the_end(async move { discard_all(&client, &topic, &chosen).await }).await
    };
    context.respond(&list_path(&topic), acting.await)
}

/// Returns the path of a topic's list.
pub(super) fn list_path(topic: &str) -> String {
    format!("dead-letters/{}", utf8_percent_encode(topic, NON_ALPHANUMERIC))
}

async fn open(client: &Client, topic: &str, only: Option<i32>) -> ailurus::Result<Log> {
    Log::open(client, topic, only, NOTE).await
}

/// Reads a topic, if it is one of dead letters.
async fn checked<T>(
    actions: &Actions,
    topic: &str,
    reading: impl Future<Output = ailurus::Result<T>>,
) -> Result<T, Refusal> {
    check_name(actions, topic)?;
    actions.read(topic, reading).await
}

fn check_name(actions: &Actions, topic: &str) -> Result<(), Refusal> {
    let suffix = &actions.client().config().processor.dead_letter_suffix;
    if suffix.is_empty() || !topic.ends_with(suffix) {
        let why = format!("{topic} is no dead-letter topic: it does not end in {suffix:?}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, why));
    }
    Ok(())
}

fn gone(topic: &str, (partition, offset): At) -> Refusal {
    let why = format!("there is no dead letter at {topic}/{partition}@{offset}: it may have been deleted");
    Refusal::new(StatusCode::NOT_FOUND, why)
}

/// Returns the position that a path or a field names.
fn place(text: &str) -> Result<At, Refusal> {
    let place = text.split_once('/').and_then(|(p, o)| Some((p.parse::<i32>().ok()?, o.parse::<i64>().ok()?)));
    place.filter(|(p, o)| *p >= 0 && *o >= 0).ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("{text:?} is no position: it is PARTITION/OFFSET, such as 0/17"))
    })
}

/// Returns the positions that a form has chosen.
fn chosen(actions: &Actions, topic: &str, form: &Form) -> Result<BTreeSet<At>, Refusal> {
    check_name(actions, topic)?;
    let chosen = form.all("at").map(place).collect::<Result<BTreeSet<_>, _>>()?;
    match chosen.len() {
        0 => Err(Refusal::new(StatusCode::BAD_REQUEST, "no dead letter is chosen")),
        1..=MAX_LETTERS => Ok(chosen),
        n => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("{n} dead letters are chosen: at most {MAX_LETTERS}"))),
    }
}

/// Returns the edit of a form: of one dead letter alone.
fn edit(form: &Form, count: usize) -> Result<Edit, Refusal> {
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
    let mut edit = Edit { remove_headers: form.all("remove").map(str::to_owned).collect(), ..Edit::default() };
    let (names, values) = (form.all("header-name").map(str::trim), form.all("header-value"));
    edit.set_headers = names.zip(values).filter(|(n, _)| !n.is_empty()).map(|(n, v)| (n.into(), v.into())).collect();
    if let Some(name) = form.text("encoding") {
        let encoding =
            Encoding::named(name).ok_or_else(|| bad(format!("encoding is {name:?}: it is none of the form's")))?;
        let value = encoding.decode(form.get("value").unwrap_or_default());
        edit.value = Some(value.map_err(|why| bad(format!("the value can't be read: {why}")))?);
    }
    let is_edit = edit.value.is_some() || !edit.set_headers.is_empty() || !edit.remove_headers.is_empty();
    if is_edit && count > 1 {
        return Err(bad("one dead letter at a time is edited".to_owned()));
    }
    Ok(edit)
}

/// Returns the chosen dead letters, and why others of them are left out.
async fn find(log: &Log, chosen: &BTreeSet<At>) -> ailurus::Result<(Vec<DeadLetterRecord>, Vec<String>)> {
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for at in chosen {
        let place = format!("{}/{}@{}", log.topic(), at.0, at.1);
        match log.find(*at).await? {
            Some(dead_letter) if dead_letter.state == Is::Open => found.push(dead_letter),
            Some(dead_letter) => left_out.push(format!("{place} is {} already", dead_letter.state.name())),
            None => left_out.push(format!("there is no dead letter at {place}: it may have been deleted")),
        }
    }
    Ok((found, left_out))
}

async fn replay_all(client: &Client, topic: &str, chosen: &BTreeSet<At>, edit: &Edit) -> Result<String, Refusal> {
    let suffix = client.config().processor.dead_letter_suffix.clone();
    let lock = Lock::take(client, topic).await?;
    let mut replay = Replay::new(client, Some(lock), Limits { max_replays: DEFAULT_MAX_REPLAYS, suffix })?;
    let result = replay_under_lock(client, &mut replay, topic, chosen, edit).await;
    let closed = replay.close().await;
    let outcome = result?;
    closed?;
    outcome
}

async fn replay_under_lock(
    client: &Client,
    replay: &mut Replay,
    topic: &str,
    chosen: &BTreeSet<At>,
    edit: &Edit,
) -> ailurus::Result<Result<String, Refusal>> {
    let log = open(client, topic, None).await?;
    let (found, mut refused) = find(&log, chosen).await?;
    let is_gone = found.is_empty();
    let mut done = Vec::new();
    for dead_letter in found {
        let (partition, at) = (dead_letter.partition, position(topic, &dead_letter));
        let ready = match replay.prepare(topic, dead_letter, edit).await? {
            Ok(ready) => ready,
            Err((_, why)) => {
                refused.push(format!("{at} was not replayed: {why}"));
                continue;
            }
        };
        replay.check().await?;
        let delivery = replay.send(&ready).await;
        let on_sent = |ready: &Ready, sent: Sent| {
            match sent {
                Sent::Acknowledged(ack) => {
                    let offset = ack.offset.map(|offset| format!("@{offset}")).unwrap_or_default();
                    let to = format!("{}/{}{offset}", ready.dead_letter.info.origin.topic, ack.partition);
                    tracing::info!(dead_letter = at, to, edited = ready.change.is_some(), "replayed on the page");
                    done.push(format!("{at} was replayed to {to}"));
                }
                Sent::Refused(why) => refused.push(format!("{at} was not replayed: {why}")),
            }
            Ok::<_, ailurus::Error>(())
        };
        replay.complete(&log, partition, [(ready, delivery)], on_sent).await?;
    }
    Ok(outcome(done, refused, is_gone, "replayed"))
}

async fn discard_all(client: &Client, topic: &str, chosen: &BTreeSet<At>) -> Result<String, Refusal> {
    let lock = Lock::take(client, topic).await?;
    let result = discard_under_lock(client, topic, chosen).await;
    let released = lock.release().await;
    let outcome = result?;
    released?;
    outcome
}

async fn discard_under_lock(
    client: &Client,
    topic: &str,
    chosen: &BTreeSet<At>,
) -> ailurus::Result<Result<String, Refusal>> {
    let log = open(client, topic, None).await?;
    let (found, refused) = find(&log, chosen).await?;
    let mut settings = client.config().producer.clone();
    settings.acks = Acks::All; // what is written here replaces a dead letter
    let producer = client.producer().config(settings).start()?;
    let mut done = Vec::new();
    let mut failed = None;
    for dead_letter in &found {
        let mut offsets = Offsets::default();
        offsets.insert(dead_letter.record.offset);
        match dead_letters::discard(&producer, topic, dead_letter.partition, &offsets).await {
            Ok(()) => {
                let at = position(topic, dead_letter);
                tracing::info!(dead_letter = at, "discarded on the page");
                done.push(format!("{at} was discarded"));
            }
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    producer.close(CLOSE_TIMEOUT).await?;
    match failed {
        Some(e) => Err(e),
        None => Ok(outcome(done, refused, found.is_empty(), "discarded")),
    }
}

fn position(topic: &str, dead_letter: &DeadLetterRecord) -> String {
    format!("{topic}/{}@{}", dead_letter.partition, dead_letter.record.offset)
}

/// Returns the outcome of an action as text: an error if nothing was done.
fn outcome(mut done: Vec<String>, refused: Vec<String>, is_gone: bool, what: &str) -> Result<String, Refusal> {
    if done.is_empty() {
        let code = if is_gone && refused.iter().all(|why| why.starts_with("there is no")) {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::CONFLICT
        };
        return Err(Refusal::new(code, for_operators(&refused.join("; "))));
    }
    if done.len() > 1 {
        done = vec![format!("{} dead letters were {what}", done.len())];
    }
    done.extend(refused);
    Ok(for_operators(&format!("{}.", done.join("; "))))
}
