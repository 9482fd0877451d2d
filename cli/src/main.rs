//! The command `ailurus`: produce, consume, inspect, serve and measure Redpanda and Apache Kafka.

mod args;
mod commands;
mod embedded;
mod options;
mod output;
mod place;
mod progress;
mod selection;
mod settings;

use std::process::ExitCode;

use ailurus_serve::{exit, log, signals};
use anyhow::Context;
use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use exit::Exit;

/// musl's own allocator maps and unmaps memory for each large buffer, such as a fetch. Not on 32-bit CPUs: on armv7, as qemu
/// emulates it, consuming with this one ended in a segmentation fault.
#[cfg(all(target_env = "musl", target_pointer_width = "64"))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// Default log filter of commands that report themselves which records were not delivered.
const SENDER_LOG: &str = "warn,ailurus::created=info,ailurus::undelivered=off";

fn main() -> ExitCode {
    let cli = Cli::parse();
    exit::report(run(cli)).into()
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let default = match &cli.command {
        Command::Demo(_) => "error", // it kills members on purpose, and reports that itself
        Command::Produce(_) | Command::Bench(_) | Command::Dlq(_) => SENDER_LOG,
        _ => log::DEFAULT,
    };
    let finish_log = log::start(cli.global.log.as_deref(), default)?;
    let runtime = match &cli.command {
        Command::Bench(_) => commands::bench::runtime(),
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
    };
    let outcome = runtime.context("the async runtime could not be started")?.block_on(dispatch(cli));
    finish_log.into_iter().for_each(|finish| finish());
    outcome
}

async fn dispatch(Cli { global, command }: Cli) -> anyhow::Result<Exit> {
    match command {
        Command::Demo(args) => commands::demo::run(&global, args).await,
        Command::Produce(args) => commands::produce::run(&global, args).await,
        Command::Consume(args) => commands::consume::run(&global, args).await,
        Command::Topic(args) => commands::topic::run(&global, args).await,
        Command::Group(args) => commands::group::run(&global, args).await,
        Command::Txn(args) => commands::txn::run(&global, args).await,
        Command::Records(args) => commands::records::run(&global, args).await,
        Command::Config(args) => commands::config::run(&global, args).await,
        Command::Acl(args) => commands::acl::run(&global, args).await,
        Command::Cluster(args) => commands::cluster::run(&global, args).await,
        Command::Dlq(args) => commands::dlq::run(&global, args).await,
        Command::Registry(args) => commands::registry::run(&global, args).await,
        Command::Health(args) => commands::health::run(&global, args).await,
        Command::Broker(args) => commands::broker::run(args).await,
        Command::Serve(args) => commands::serve::run(&global, args).await,
        Command::Bench(args) => commands::bench::run(&global, args).await,
        Command::Completions(args) => commands::completions::run(Cli::command(), &args),
        Command::Man(args) => commands::man::run(Cli::command(), &args),
    }
}
