//! The binary `ailurus-shop`: the shop's two consumers on a durable store, with their health over HTTP.

mod app;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ailurus::{Client, RedpandaService};
use ailurus_serve::actions::Actions;
use ailurus_serve::exit::{self, Exit};
use ailurus_serve::http::Server;
use ailurus_serve::metrics::Exposition;
use ailurus_serve::options::{ActionToken, Address, Global};
use ailurus_serve::signals::Shutdown;
use ailurus_serve::{ClientApp, log, router, router_with_actions, settings, text};
use anyhow::Context;
use clap::Parser;

use app::Shop;

/// Run the shop's consumers, with their health over HTTP.
///
/// Two consumer groups: one keeps the stock of products, one keeps figures about orders; both write to the store, in which
/// an event counts once even when it is delivered twice. HTTP responds before the cluster is reached. While no broker can be
/// reached the consumers wait, at the start too: the log, the page and /health/ready say why. SIGTERM or SIGINT
/// finishes the records in flight (within REDPANDA_SHUTDOWN_TIMEOUT, 30 s by default), commits, leaves the groups and ends; a
/// second signal cancels them, but commits and leaves all the same; a third ends at once. Records that were fetched and not
/// handled are counted on stderr, and handled by the next member.
#[derive(Debug, Parser)]
#[command(
    name = "ailurus-shop",
    version,
    max_term_width = 100,
    after_help = "\
GET /                 brokers, topics, groups and lag as a page for people
GET /health/live      200 while the process runs
GET /health/ready     200 while a broker responds and both consumers are members of their
                      groups, else 503 with the reasons
GET /health/redpanda  brokers, topics, groups and lag as JSON; 503 if no broker can be
                      reached, a consumer has ended, or one is stalled: records wait, and
                      none has ended for REDPANDA_STALL_TIMEOUT (60 s by default)
GET /metrics          counters, times and lag for Prometheus

A response takes 3 s at most (REDPANDA_HEALTH_TIMEOUT). However many requests there are, the
cluster gets them once a second.

Settings are REDPANDA_* variables of the environment, and of the file .env in the working directory.

Exit codes:
  0    ended by a signal
  1    a consumer failed, or its work could not be committed
  2    a setting is wrong
  6    the first login is refused
  130  a second signal cut the end short"
)]
struct Options {
    #[command(flatten)]
    global: Global,
    /// Address on which HTTP listens. There is no login, so by default only this machine reaches it; 0.0.0.0:8080 listens
    /// on every interface.
    #[arg(long, alias = "http", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: Address,
    /// The file of the store, created if it does not exist.
    #[arg(long, value_name = "PATH", default_value = "ailurus-shop.redb")]
    store: PathBuf,
    #[command(flatten)]
    token: ActionToken,
}

/// Maximum time for the producer, connections and pending responses at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    exit::report(run(&Options::parse())).into()
}

fn run(options: &Options) -> anyhow::Result<Exit> {
    let finish_log = log::start(options.global.log.as_deref(), log::DEFAULT)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.context("the async runtime could not be started")?.block_on(serve(options));
    finish_log.into_iter().for_each(|finish| finish());
    outcome
}

async fn serve(options: &Options) -> anyhow::Result<Exit> {
    let token = options.token.read()?;
    let exposition = Exposition::new(env!("CARGO_PKG_VERSION"));
    let config = settings::service(&options.global)?.metrics(exposition.registry()).build()?;
    let client = Client::new(config);
    let (service, around) = (RedpandaService::new(&client)?, ClientApp::new(&client, exposition));
    let actions = token.map(|token| Actions::new(token, &client));
    let shop = Arc::new(Shop::new(service, around, actions.clone(), Shutdown::install_for_three()?));
    let routes = match actions {
        Some(actions) => router_with_actions(Arc::clone(&shop), actions),
        None => router(Arc::clone(&shop)),
    };
    let server = Server::start_with(options.listen.resolve().await?, routes).await?;
    text::print(format_args!("http://{}/health/redpanda\n", server.address()))?;
    let result = shop.run(&options.store).await;
    let stopped = server.stop(CLOSE_TIMEOUT).await;
    result?;
    stopped?;
    Ok(if shop.is_cut_short() { Exit::Interrupted } else { Exit::Success })
}
