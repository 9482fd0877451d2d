//! `ailurus serve`: the shop's consumers, and their health over HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ailurus::health::Status;
use ailurus::{Config, RedpandaService, Subscription};
use ailurus_shop::consumers::{spawn_analytics_consumer, spawn_stock_consumer};
use ailurus_shop::{Store, Topics};
use anyhow::{Context, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::health::check;
use crate::args::Global;
use crate::exit::Exit;
use crate::output::{self, note};
use crate::settings;
use crate::signals::Shutdown;

/// Run the shop's consumers, with their health over HTTP.
///
/// Two consumer groups: one keeps the stock of products, one keeps figures about orders; both write to the store, in which
/// an event counts once even when it is delivered twice. HTTP answers before the cluster is reached, and connecting is
/// tried until it succeeds. SIGTERM or SIGINT finishes the records in hand (within REDPANDA_SHUTDOWN_TIMEOUT, 30 s by default),
/// commits, leaves the groups and ends; a second signal cancels them, but commits and leaves all the same; a third ends at
/// once. What was fetched and is left is told, and handled again by the next member.
#[derive(Debug, Args)]
#[command(after_help = "\
GET /health/live      200 while the process runs
GET /health/ready     200 while both consumers are members of their groups, else 503
GET /health/redpanda  brokers, groups and lag as JSON; 503 if the cluster can't be reached

Exit codes:
  0    ended by a signal
  1    a consumer failed, or its work could not be committed
  130  a second signal cut the end short")]
pub struct Serve {
    /// Where HTTP listens.
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// The file of the store, created if it is not there.
    #[arg(long, value_name = "PATH", default_value = "ailurus-shop.redb")]
    store: PathBuf,
}

/// The time between two tries to reach the cluster.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether the consumers are members of their groups.
const LOOK: Duration = Duration::from_millis(100);
/// How long producer and connections may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

pub async fn run(global: &Global, args: Serve) -> anyhow::Result<Exit> {
    let config = settings::builder(global)?.build()?;
    let shutdown = Shutdown::install_for_three()?;
    let listener = TcpListener::bind(args.http).await.with_context(|| format!("HTTP can't listen on {}", args.http))?;
    output::print(format_args!("http://{}/health/redpanda\n", listener.local_addr()?))?;
    let app = Arc::new(App::new(config));
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
    let result = app.run(&args, &shutdown).await;
    app.ready.store(false, Ordering::Relaxed);
    drop(stop_http);
    let stopped = tokio::time::timeout(CLOSE_WITHIN, http).await;
    result?;
    if let Ok(ended) = stopped {
        ended?.context("HTTP")?;
    }
    Ok(if shutdown.is_cut_short() { Exit::Interrupted } else { Exit::Success })
}

/// What the HTTP side sees.
struct App {
    config: Config,
    /// Once the cluster is reached.
    service: OnceLock<RedpandaService>,
    ready: AtomicBool,
}

impl App {
    fn new(config: Config) -> Self {
        Self { config, service: OnceLock::new(), ready: AtomicBool::new(false) }
    }

    /// Connects, consumes until the end is asked for or a consumer fails, and shuts down.
    async fn run(&self, args: &Serve, shutdown: &Shutdown) -> anyhow::Result<()> {
        let service = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            service = self.connect() => service,
        };
        let result = match Store::open(&args.store).await {
            Ok(store) => {
                let result = self.consume(service, &store, shutdown).await;
                store.close().await;
                result
            }
            Err(e) => Err(e.into()),
        };
        result.and(service.close(CLOSE_WITHIN).await.map_err(Into::into))
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
        self.ready.store(false, Ordering::Relaxed);
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

    /// Tries until the cluster is reached.
    async fn connect(&self) -> &RedpandaService {
        loop {
            match RedpandaService::connect(self.config.clone()).await {
                Ok(service) => return self.service.get_or_init(|| service),
                Err(e) => note(format_args!("{}; trying again", e.full())),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Keeps `ready` up to date; never ends.
    async fn watch_members(&self, subscriptions: &[Subscription]) {
        loop {
            let members = subscriptions.iter().all(|s| s.health().state == "member");
            if self.ready.swap(members, Ordering::Relaxed) != members {
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
        .with_state(app)
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.ready.load(Ordering::Relaxed) {
        true => (StatusCode::OK, Json(json!({"status": "ready"}))).into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready"}))).into_response(),
    }
}

async fn redpanda(State(app): State<Arc<App>>) -> Response {
    let health = match app.service.get() {
        Some(service) => service.health().await,
        None => check(app.config.clone()).await,
    };
    let code = if health.status == Status::Unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(health)).into_response()
}
