//! The command `ailurus`: produce, consume, inspect, serve and measure Redpanda and Apache Kafka.

mod args;
mod commands;
mod embedded;
mod exit;
mod listen;
mod metrics;
mod oauth;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod place;
mod progress;
mod selection;
mod settings;
mod signals;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use args::{Cli, Command};
use exit::{Exit, Usage};

/// musl's own allocator maps what is large anew each time, and gives it back: a fetch is such a thing. Not on 32-bit CPUs: on armv7,
/// as qemu emulates it, consuming ended in a segmentation fault with this one.
#[cfg(all(target_env = "musl", target_pointer_width = "64"))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// What is logged by default: also topics that were created, for their names may be mistyped.
const LOG: &str = "warn,ailurus::created=info";

/// The same for commands that say themselves which records were not delivered.
const LOG_OF_SENDERS: &str = "warn,ailurus::created=info,ailurus::undelivered=off";

fn main() -> ExitCode {
    let cli = Cli::parse();
    exit::report(run(cli)).into()
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let default = match &cli.command {
        Command::Demo(_) => "error", // it kills members on purpose, and says so itself
        Command::Produce(_) | Command::Bench(_) | Command::Dlq(_) => LOG_OF_SENDERS,
        _ => LOG,
    };
    let at_end = start_log(cli.global.log.as_deref().filter(|filter| !filter.is_empty()).unwrap_or(default))?;
    let runtime = match &cli.command {
        Command::Bench(_) => commands::bench::runtime(),
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
    };
    let outcome = runtime.context("the async runtime could not be started")?.block_on(dispatch(cli));
    at_end.into_iter().for_each(|finish| finish());
    outcome
}

async fn dispatch(Cli { global, command }: Cli) -> anyhow::Result<Exit> {
    match command {
        Command::Demo(args) => commands::demo::run(&global, args).await,
        Command::Produce(args) => commands::produce::run(&global, args).await,
        Command::Consume(args) => commands::consume::run(&global, args).await,
        Command::Topic(args) => commands::topic::run(&global, args).await,
        Command::Group(args) => commands::group::run(&global, args).await,
        Command::Records(args) => commands::records::run(&global, args).await,
        Command::Config(args) => commands::config::run(&global, args).await,
        Command::Acl(args) => commands::acl::run(&global, args).await,
        Command::Cluster(args) => commands::cluster::run(&global, args).await,
        Command::Dlq(args) => commands::dlq::run(&global, args).await,
        Command::Health(args) => commands::health::run(&global, args).await,
        Command::Broker(args) => commands::broker::run(args).await,
        Command::Serve(args) => commands::serve::run(&global, args).await,
        Command::Bench(args) => commands::bench::run(&global, args).await,
        Command::Completions(args) => commands::completions::run(&args),
        Command::Man(args) => commands::man::run(&args),
    }
}

/// Log lines go to stderr: stdout is for what the command was asked for. Gives what is to be done at the end.
fn start_log(filter: &str) -> anyhow::Result<Option<Box<dyn FnOnce()>>> {
    let filter: Targets = filter.parse().map_err(|e| {
        Usage(format!("--log (RUST_LOG) is {filter:?}: {e}; write a level such as info, or ailurus=debug,warn"))
    })?;
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_filter(filter);
    let registry = tracing_subscriber::registry().with(log);
    #[cfg(feature = "otlp")]
    if let Some(exporter) = otlp::Exporter::from_env()? {
        registry.with(exporter.layer()).init();
        return Ok(Some(Box::new(move || exporter.finish())));
    }
    registry.init();
    Ok(None)
}
