//! `ailurus serve`: the shop's consumers, and their health over HTTP.

mod page;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ailurus::health::{Status, SubscriptionHealth};
use ailurus::{Client, Health, RedpandaService, Subscription};
use ailurus_shop::consumers::{spawn_analytics_consumer, spawn_stock_consumer};
use ailurus_shop::{Store, Topics};
use anyhow::{Context, bail};
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::args::Global;
use crate::exit::Exit;
use crate::listen::Address;
use crate::metrics::Exposition;
use crate::output::{self, note};
use crate::settings;
use crate::signals::Shutdown;

/// Run the shop's consumers, with their health over HTTP.
///
/// Two consumer groups: one keeps the stock of products, one keeps figures about orders; both write to the store, in which
/// an event counts once even when it is delivered twice. HTTP answers before the cluster is reached. While no broker can be
/// reached the consumers wait, at the start too: the log says why, and so do the page and /health/ready. SIGTERM or SIGINT
/// finishes the records in flight (within REDPANDA_SHUTDOWN_TIMEOUT, 30 s by default),
/// commits, leaves the groups and ends; a second signal cancels them, but commits and leaves all the same; a third ends at
/// once. Records that were fetched and not handled are counted on stderr, and handled by the next member.
#[derive(Debug, Args)]
#[command(after_help = "\
GET /                 brokers, topics, groups and lag as a page for people
GET /health/live      200 while the process runs
GET /health/ready     200 while a broker answers and both consumers are members of their
                      groups, else 503 with the reasons
GET /health/redpanda  brokers, topics, groups and lag as JSON; 503 if no broker can be
                      reached, a consumer has ended, or one is stalled: records wait, and
                      none has ended for REDPANDA_STALL_TIMEOUT (60 s by default)

An answer takes 3 s at most (REDPANDA_HEALTH_TIMEOUT). However many ask, the cluster is asked
once a second.

GET /metrics          counters, times and lag for Prometheus

Exit codes:
  0    ended by a signal
  1    a consumer failed, or its work could not be committed
  2    a setting is wrong
  6    the first login is refused
  130  a second signal cut the end short")]
pub struct Serve {
    /// Where HTTP listens. It asks for no login, so by default only this machine reaches it; 0.0.0.0:8080 listens on every
    /// interface.
    #[arg(long, alias = "http", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: Address,
    /// The file of the store, created if it is not there.
    #[arg(long, value_name = "PATH", default_value = "ailurus-shop.redb")]
    store: PathBuf,
}

/// How often it is looked whether the consumers are members of their groups.
const LOOK: Duration = Duration::from_millis(100);
/// How long producer and connections may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

pub async fn run(global: &Global, args: Serve) -> anyhow::Result<Exit> {
    let exposition = Exposition::new();
    let config = settings::service(global)?.metrics(exposition.counts()).build()?;
    let service = RedpandaService::new(&Client::new(config))?;
    let shutdown = Shutdown::install_for_three()?;
    let listen = args.listen.resolve().await?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("HTTP can't listen on {listen}"))?;
    output::print(format_args!("http://{}/health/redpanda\n", listener.local_addr()?))?;
    let app = Arc::new(App { service, exposition, stage: Mutex::new(Stage::Starting), shutdown });
    let (stop_http, stopped) = oneshot::channel::<()>();
    let http = tokio::spawn({
        let router = router(Arc::clone(&app));
        async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(async {
                    let _ = stopped.await; // also when the sender is gone
                })
                .await
        }
    });
    let result = app.run(&args).await;
    drop(stop_http);
    let stopped = tokio::time::timeout(CLOSE_WITHIN, http).await;
    result?;
    if let Ok(ended) = stopped {
        ended?.context("HTTP")?;
    }
    Ok(if app.shutdown.is_cut_short() { Exit::Interrupted } else { Exit::Success })
}

/// How far the process is. One value, so that whoever looks never sees half of a change; nothing comes after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The consumers are being started.
    Starting,
    /// They run; whether both are members of their groups.
    Running { members: bool },
    /// The process ends, by a signal or because a consumer has.
    Ending,
}

impl Stage {
    fn then(self, next: Self) -> Self {
        if self == Self::Ending { Self::Ending } else { next }
    }
}

/// What the HTTP side sees.
struct App {
    /// From the beginning, whether its cluster is reached or not.
    service: RedpandaService,
    exposition: Exposition,
    stage: Mutex<Stage>,
    shutdown: Shutdown,
}

impl App {
    /// Consumes until the end is asked for or a consumer fails, and shuts down.
    async fn run(&self, args: &Serve) -> anyhow::Result<()> {
        let result = match Store::open(&args.store).await {
            Ok(store) => {
                let result = self.consume(&self.service, &store, &self.shutdown).await;
                store.close().await;
                result
            }
            Err(e) => Err(e.into()),
        };
        self.enter(Stage::Ending);
        result.and(self.service.close(CLOSE_WITHIN).await.map_err(Into::into))
    }

    async fn consume(&self, service: &RedpandaService, store: &Store, shutdown: &Shutdown) -> anyhow::Result<()> {
        let topics = Topics::default();
        let stock = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            stock = spawn_stock_consumer(service, store.clone(), &topics) => stock?,
        };
        let mut subscriptions = vec![stock];
        let ended = tokio::select! {
            () = shutdown.requested() => Ok(()),
            analytics = spawn_analytics_consumer(service, store.clone(), &topics) => match analytics {
                Ok(analytics) => {
                    subscriptions.push(analytics);
                    self.watch(&subscriptions, shutdown).await
                }
                Err(e) => Err(e.into()),
            },
        };
        self.enter(Stage::Ending);
        ended.and(end(subscriptions, shutdown).await)
    }

    /// Waits until the end is asked for or a consumer ends by itself.
    async fn watch(&self, subscriptions: &[Subscription], shutdown: &Shutdown) -> anyhow::Result<()> {
        let [stock, analytics] = subscriptions else { return Ok(()) };
        let (name, ended) = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            ended = stock.ended() => ("stock", ended),
            ended = analytics.ended() => ("analytics", ended),
            () = self.watch_members(subscriptions) => return Ok(()),
        };
        ended.with_context(|| format!("the {name} consumer"))?;
        bail!("the {name} consumer ended")
    }

    /// Keeps `members` up to date; never ends.
    async fn watch_members(&self, subscriptions: &[Subscription]) {
        loop {
            let members = subscriptions.iter().all(|s| s.health().state == "member");
            let was = self.enter(Stage::Running { members });
            if (was == Stage::Running { members: true }) != members {
                note(format_args!("{}", if members { "ready" } else { "not ready: a consumer is not in its group" }));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Shuts all down side by side, and says what is left.
async fn end(subscriptions: Vec<Subscription>, shutdown: &Shutdown) -> anyhow::Result<()> {
    let ending: Vec<_> = subscriptions
        .into_iter()
        .map(|s| (s.health().group, tokio::spawn(s.run_until(std::future::ready(()), shutdown.cut_short()))))
        .collect();
    let mut result = Ok(());
    for (group, task) in ending {
        let ended = task.await?;
        match ended {
            Ok(left) if left.is_empty() => {}
            Ok(left) => note(format_args!("group {group} ended with records left: {left}")),
            Err(e) => result = result.and(Err(e.into())),
        }
    }
    result
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/health/live", get(async || Json(json!({"status": "live"}))))
        .route("/health/ready", get(ready))
        .route("/health/redpanda", get(redpanda))
        .route("/metrics", get(metrics))
        .merge(page::routes())
        .with_state(app)
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let reasons = app.not_ready().await;
    if reasons.is_empty() {
        return Json(json!({"status": "ready"})).into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready", "reasons": reasons}))).into_response()
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match app.exposition.text(accepted) {
        Ok((format, text)) => ([(CONTENT_TYPE, format)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn redpanda(State(app): State<Arc<App>>) -> Response {
    let health = app.service.health().await;
    let code = if health.status == Status::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(health)).into_response()
}

impl App {
    /// Why no work is to be expected of this process. A group notices only after the session timeout that its brokers are
    /// gone, so they are asked.
    async fn not_ready(&self) -> Vec<String> {
        if self.stage() == Stage::Ending {
            return not_ready(Stage::Ending, None);
        }
        let health = self.service.health().await;
        // Behind the wait: the end may have begun meanwhile.
        not_ready(self.stage(), Some(&health))
    }

    /// Goes on to a stage; gives the one before. The end is the last one.
    fn enter(&self, next: Stage) -> Stage {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *stage;
        *stage = before.then(next);
        before
    }

    fn stage(&self) -> Stage {
        // The signal comes before all that follows from it.
        if self.shutdown.is_requested() {
            Stage::Ending
        } else {
            *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// Why a process in this stage, whose cluster is so, is not ready.
fn not_ready(stage: Stage, health: Option<&Health>) -> Vec<String> {
    match (stage, health) {
        (Stage::Ending, _) => vec!["the process is shutting down".to_owned()],
        (_, Some(health)) if !health.is_reachable() => health.problems.clone(),
        (Stage::Running { members: true }, _) => Vec::new(),
        (_, Some(health)) => outside(health),
        (_, None) => vec![STARTING.to_owned()],
    }
}

const STARTING: &str = "the consumers are being started";

/// The consumers that are not in their groups, and why.
fn outside(health: &Health) -> Vec<String> {
    let outside = health.subscriptions.iter().filter(|s| s.state != "member");
    let reason = |s: &SubscriptionHealth| {
        let why = s.problem.as_ref().map(|problem| format!(", {problem}")).unwrap_or_default();
        format!("the consumer of group {:?} is {}{why}", s.group, s.state)
    };
    let reasons: Vec<_> = outside.map(reason).collect();
    if reasons.is_empty() { vec![STARTING.to_owned()] } else { reasons }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn health(up: bool, state: &str) -> Health {
        let broker = json!({
            "id": 1, "address": "127.0.0.1:9092", "status": if up { "up" } else { "down" }, "latencyMs": null,
            "error": if up { json!(null) } else { json!("127.0.0.1:9092: refused the connection") },
        });
        let subscription = json!({
            "group": "g", "topics": ["t"], "state": state, "stateMs": 1, "memberId": null, "generation": null,
            "activity": "idle", "lag": 0, "partitions": [],
        });
        let problems = if up { json!([]) } else { json!(["127.0.0.1:9092: refused the connection"]) };
        let all = json!({
            "status": "degraded", "problems": problems, "ageMs": 0, "clusterId": null, "controllerId": null,
            "brokers": [broker], "topics": [], "subscriptions": [subscription],
        });
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn whatever_is_seen_while_the_process_ends_it_is_shutting_down() {
        for (up, state) in [(true, "member"), (true, "closed"), (true, "joining"), (false, "member")] {
            let reasons = not_ready(Stage::Ending, Some(&health(up, state)));
            assert_eq!(reasons, ["the process is shutting down"], "{up} {state}");
        }
        for next in [Stage::Starting, Stage::Running { members: true }, Stage::Running { members: false }] {
            assert_eq!(Stage::Ending.then(next), Stage::Ending, "nothing comes after the end");
            assert_eq!(next.then(Stage::Ending), Stage::Ending);
        }
    }

    #[test]
    fn who_is_not_ready_says_why() {
        let running = |members| Stage::Running { members };
        assert!(not_ready(running(true), Some(&health(true, "member"))).is_empty());
        assert_eq!(not_ready(Stage::Starting, Some(&health(true, "member"))), [STARTING]);
        let outside = not_ready(running(false), Some(&health(true, "joining")));
        assert_eq!(outside, ["the consumer of group \"g\" is joining"]);
        for stage in [Stage::Starting, running(true), running(false)] {
            assert!(not_ready(stage, Some(&health(false, "member")))[0].contains("refused"), "{stage:?}");
        }
    }
}
