//! `ailurus serve`: a cluster, its groups and its dead letters, watched over HTTP.

mod report;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use ailurus::Client;
use ailurus_serve::actions::Actions;
use ailurus_serve::http::{App, SHUTTING_DOWN, Server};
use ailurus_serve::lag::LagHistory;
use ailurus_serve::metrics::Exposition;
use ailurus_serve::options::ActionToken;
use ailurus_serve::{router, router_with_actions};
use clap::Args;
use tokio::sync::watch;

use crate::exit::Exit;
use crate::options::{Address, Global};
use crate::output;
use crate::settings;
use crate::signals::Shutdown;
use report::Watched;
use watcher::Watcher;

/// Watch a cluster over HTTP: brokers, topics, groups, lag and dead letters.
///
/// It only reads: it joins no group, creates no topic and writes nothing, but for what those with the token of --token-file do
/// on the page: replay, edit and discard dead letters (as ailurus dlq), abort transactions that hang. HTTP responds before the cluster is reached; while
/// no broker can be reached the page and /health/ready say why. SIGTERM or SIGINT ends it.
#[derive(Debug, Args)]
#[command(after_help = "\
GET /                 brokers, topics, groups, lag and dead letters as a page for people
GET /health/live      200 while the process runs
GET /health/ready     200 while a broker responds, else 503 with the reasons
GET /health/redpanda  brokers, topics, groups, lag and dead letters as JSON; 503 if no broker
                      can be reached, or if a partition is stalled: records wait, a member
                      has it, and nothing was committed for REDPANDA_STALL_TIMEOUT (60 s)
GET /metrics          lag and committed offsets of all groups, members of groups, dead
                      letters, and the requests of this process, for Prometheus

All show the state of the last look at the cluster, which takes place every --interval seconds,
however many requests there are.

Exit codes:
  0  ended by a signal
  2  a setting is wrong
  6  the first login is refused

Examples:
  ailurus serve --brokers redpanda:9092
  ailurus serve --listen 0.0.0.0:8080 --interval 15
  openssl rand -hex 32 > token; ailurus serve --token-file token")]
pub struct Serve {
    /// Address on which HTTP listens. There is no login, so by default only this machine reaches it; 0.0.0.0:8080 listens
    /// on every interface.
    #[arg(long, alias = "http", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: Address,
    /// Time between two looks at the cluster.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    #[command(flatten)]
    token: ActionToken,
}

/// Maximum time for pending responses and connections at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub async fn run(global: &Global, args: Serve) -> anyhow::Result<Exit> {
    let token = args.token.read()?;
    let (last, seen) = watch::channel(None);
    let gauges = move || seen.borrow().as_ref().map(|watched: &Arc<Watched>| watched.gauges()).unwrap_or_default();
    let exposition = Exposition::with_gauges(env!("CARGO_PKG_VERSION"), gauges);
    let config = settings::builder(global)?.allow_auto_topic_creation(false).metrics(exposition.registry()).build()?;
    let client = Client::new(config);
    let shutdown = Shutdown::install()?;
    let app = Arc::new(Watch { last, lag: LagHistory::default(), exposition, shutdown });
    let routes = match token {
        Some(token) => router_with_actions(Arc::clone(&app), Actions::new(token, &client)),
        None => router(Arc::clone(&app)),
    };
    let server = Server::start_with(args.listen.resolve().await?, routes).await?;
    output::print(format_args!("http://{}/health/redpanda\n", server.address()))?;
    let watching = keep_looking(&client, &app, Duration::from_secs(args.interval));
    let result = app.shutdown.unless_requested(watching).await;
    let stopped = server.stop(CLOSE_TIMEOUT).await;
    client.close().await;
    result.unwrap_or(Ok(()))?;
    stopped?;
    Ok(Exit::Success)
}

/// Looks at the cluster at each interval; ends only if the first login is refused.
async fn keep_looking(client: &Client, app: &Watch, interval: Duration) -> anyhow::Result<()> {
    let mut watcher = Watcher::new(client);
    let mut was_reached = false;
    loop {
        let before = app.last.borrow().clone();
        let watched = watcher.look(before.as_deref()).await;
        was_reached |= watched.health.is_reachable();
        if !was_reached {
            watcher.check_login().await?;
        }
        app.lag.record(watched.at, watched.groups.iter().map(|g| (g.group.clone(), g.lag)));
        app.last.send_replace(Some(Arc::new(watched)));
        tokio::time::sleep(interval).await;
    }
}

/// The application, as its HTTP server sees it.
struct Watch {
    last: watch::Sender<Option<Arc<Watched>>>,
    lag: LagHistory,
    exposition: Exposition,
    shutdown: Shutdown,
}

impl App for Watch {
    type Report = Watched;

    async fn report(&self) -> Arc<Watched> {
        let last = self.last.subscribe().wait_for(Option::is_some).await.ok().and_then(|last| last.clone());
        let Some(last) = last else { std::future::pending().await }; // not while `self` has the sender
        let mut watched = Watched::clone(&last);
        watched.health.age = watched.at.elapsed();
        Arc::new(watched)
    }

    async fn not_ready(&self) -> Vec<String> {
        if self.shutdown.is_requested() {
            return vec![SHUTTING_DOWN.to_owned()];
        }
        match &*self.last.borrow() {
            Some(watched) if watched.health.is_reachable() => Vec::new(),
            Some(watched) => watched.health.problems.clone(),
            None => vec!["no broker has responded yet".to_owned()],
        }
    }

    fn metrics(&self) -> &Exposition {
        &self.exposition
    }

    fn lag(&self) -> &LagHistory {
        &self.lag
    }
}
