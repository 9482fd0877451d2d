//! Control of running subscriptions over HTTP: pause, resume, seek, concurrency.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ailurus::processor::{Scope, SubscriptionControl};
use ailurus::{Error, ErrorKind, Secret, StartOffset, TopicPartition};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::text::for_operators;

/// Returns the routes that control subscriptions, for those who have the token. They are mounted on purpose: [`router`](crate::router)
/// does not have them.
///
/// | request | body | effect |
/// |---|---|---|
/// | `GET /` | | the subscriptions: group, concurrency, what is paused |
/// | `POST /{group}/pause` | `{}`, `{"topic": "orders"}`, `{"topic": "orders", "partition": 3}` | pauses all, a topic, a partition |
/// | `POST /{group}/resume` | the same | resumes it |
/// | `POST /{group}/seek` | `{"topic": "orders", "partition": 3, "to": "beginning"}`; also `"end"`, an offset, a time | moves a partition |
/// | `POST /{group}/concurrency` | `{"concurrency": 64}` | changes the number of handlers at a time |
///
/// Each request has the header `Authorization: Bearer TOKEN`; without it the response is 401. An error is `{"error": "…"}`: 400 for
/// a value that is not allowed, 404 for a group that is not among them, 409 if the partition is not assigned to this member or the
/// subscription has ended, 501 for what a pipeline can't do, 503 for a broker that does not respond.
///
/// With two subscriptions of one group the later one is controlled.
///
/// ```no_run
/// # async fn example(subscription: &ailurus::Subscription, token: ailurus::Secret) {
/// let control = ailurus_serve::control::router(token, [subscription.control()]);
/// let app: axum::Router = axum::Router::new().nest("/control", control);
/// # drop(app);
/// # }
/// ```
pub fn router(token: Secret, controls: impl IntoIterator<Item = SubscriptionControl>) -> Router {
    let all = Controls::default();
    controls.into_iter().for_each(|control| all.add(control));
    routes(token, all)
}

/// Returns the routes for subscriptions that may be added later.
pub(crate) fn routes(token: Secret, controls: Controls) -> Router {
    Router::new()
        .route("/", get(list))
        .route("/{group}/pause", post(pause))
        .route("/{group}/resume", post(resume))
        .route("/{group}/seek", post(seek))
        .route("/{group}/concurrency", post(set_concurrency))
        .with_state(controls)
        .layer(middleware::from_fn_with_state(token, authorize))
}

/// The subscriptions that are controlled, by group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Controls(Arc<Mutex<BTreeMap<String, SubscriptionControl>>>);

impl Controls {
    /// Adds a subscription; it takes the place of an earlier one of its group.
    pub(crate) fn add(&self, control: SubscriptionControl) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(control.group().to_owned(), control);
    }

    pub(crate) fn all(&self) -> Vec<SubscriptionControl> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn find(&self, group: &str) -> Result<SubscriptionControl, Refusal> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(group).cloned();
        let unknown = || format!("no subscription of group {group:?} is controlled here");
        found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, unknown()))
    }
}

/// Returns whether a text is the token, in constant time: how much of a guess is right must not show. An empty token lets nobody
/// in.
pub(crate) fn is_token(token: &Secret, given: &str) -> bool {
    let is_same = bool::from(given.as_bytes().ct_eq(token.expose().as_bytes()));
    !token.is_empty() && is_same
}

/// Returns the token that a request has in its header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    given.and_then(|value| value.strip_prefix("Bearer "))
}

async fn authorize(State(token): State<Secret>, request: Request, next: Next) -> Response {
    if !is_token(&token, bearer(request.headers()).unwrap_or_default()) {
        return Refusal::new(StatusCode::UNAUTHORIZED, "the header Authorization: Bearer TOKEN is needed")
            .into_response();
    }
    next.run(request).await
}

/// A response other than success.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

impl Refusal {
    pub(crate) fn new(code: StatusCode, why: impl Into<String>) -> Self {
        Self(code, why.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        let code = match e.kind() {
            ErrorKind::Config | ErrorKind::OffsetOutOfRange => StatusCode::BAD_REQUEST,
            ErrorKind::UnknownTopic => StatusCode::NOT_FOUND,
            ErrorKind::Authorization => StatusCode::FORBIDDEN,
            ErrorKind::GroupMembership | ErrorKind::Closed => StatusCode::CONFLICT,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(code, for_operators(&format!("{e:#}")))
    }
}

impl From<JsonRejection> for Refusal {
    fn from(e: JsonRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, e.body_text())
    }
}

type Outcome = Result<Json<serde_json::Value>, Refusal>;
type Body<T> = Result<Json<T>, JsonRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeBody {
    topic: Option<String>,
    partition: Option<i32>,
}

impl ScopeBody {
    fn scope(self) -> Result<Scope, Refusal> {
        scope(self.topic, self.partition)
    }
}

/// Returns all, a topic or a partition.
pub(crate) fn scope(topic: Option<String>, partition: Option<i32>) -> Result<Scope, Refusal> {
    match (topic, partition) {
        (None, None) => Ok(Scope::All),
        (Some(topic), None) => Ok(Scope::Topic(topic)),
        (Some(topic), Some(partition)) => Ok(Scope::Partition(TopicPartition::new(topic, partition))),
        (None, Some(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "a partition needs its topic")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeekBody {
    topic: String,
    partition: i32,
    to: Place,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Place {
    Offset(i64),
    Text(String),
}

impl Place {
    fn offset(self) -> Result<StartOffset, Refusal> {
        let text = match self {
            Self::Offset(offset) => return Ok(StartOffset::Offset(offset)),
            Self::Text(text) => text,
        };
        place(&text)
    }
}

/// Returns the position of a text: an end of the log or a time.
pub(crate) fn place(text: &str) -> Result<StartOffset, Refusal> {
    match text {
        "beginning" => Ok(StartOffset::Earliest),
        "end" => Ok(StartOffset::Latest),
        time => time.parse().map(StartOffset::Timestamp).map_err(|_| {
            let allowed = "beginning, end, an offset, or a time such as 2026-01-31T12:00:00Z";
            Refusal::new(StatusCode::BAD_REQUEST, format!("to is {time:?}: allowed is {allowed}"))
        }),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConcurrencyBody {
    concurrency: usize,
}

/// A subscription, as `GET /` lists it.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    group: &'a str,
    concurrency: usize,
    paused: Vec<String>,
}

fn state_of(control: &SubscriptionControl) -> Json<serde_json::Value> {
    let paused = control.paused().iter().map(ToString::to_string).collect();
    Json(json!(Listed { group: control.group(), concurrency: control.concurrency(), paused }))
}

async fn list(State(controls): State<Controls>) -> Json<serde_json::Value> {
    Json(controls.all().iter().map(|c| state_of(c).0).collect())
}

async fn pause(State(controls): State<Controls>, Path(group): Path<String>, body: Body<ScopeBody>) -> Outcome {
    let control = controls.find(&group)?;
    control.pause(body?.0.scope()?)?;
    Ok(state_of(&control))
}

async fn resume(State(controls): State<Controls>, Path(group): Path<String>, body: Body<ScopeBody>) -> Outcome {
    let control = controls.find(&group)?;
    control.resume(body?.0.scope()?)?;
    Ok(state_of(&control))
}

async fn seek(State(controls): State<Controls>, Path(group): Path<String>, body: Body<SeekBody>) -> Outcome {
    let control = controls.find(&group)?;
    let SeekBody { topic, partition, to } = body?.0;
    let offset = control.seek(&TopicPartition::new(topic.as_str(), partition), to.offset()?).await?;
    Ok(Json(json!({"group": group, "topic": topic, "partition": partition, "offset": offset})))
}

async fn set_concurrency(
    State(controls): State<Controls>,
    Path(group): Path<String>,
    body: Body<ConcurrencyBody>,
) -> Outcome {
    let control = controls.find(&group)?;
    control.set_concurrency(body?.0.concurrency)?;
    Ok(state_of(&control))
}
