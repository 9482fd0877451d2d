//! `ailurus health`: the state of the brokers.

use ailurus::health::Status;
use ailurus::{Client, Health as Report};
use ailurus_serve::page;
use ailurus_serve::text::health_for_operators;
use clap::Args;
use serde_json::Value;

use crate::exit::Exit;
use crate::options::{Global, Json};
use crate::output::{self, Table, note, or_dash};
use crate::settings;

/// Check that every broker responds. Exits with 0 if the cluster is healthy, else with 1.
#[derive(Debug, Args)]
pub struct Health {
    #[command(flatten)]
    output: Json,
}

pub async fn run(global: &Global, args: Health) -> anyhow::Result<Exit> {
    let client = Client::new(settings::read_only(global)?);
    let health = health_for_operators(Report::check(&client).await);
    client.close().await;
    if args.output.json {
        output::json(&health)?;
    } else {
        output::print(summary(&health))?;
        for problem in &health.problems {
            note(format_args!("{problem}"));
        }
    }
    Ok(if health.status == Status::Healthy { Exit::Success } else { Exit::Failure })
}

fn summary(health: &Report) -> String {
    let status = serde_json::to_value(health.status).ok();
    let status = status.as_ref().and_then(Value::as_str).unwrap_or("unknown");
    let mut brokers = Table::new(["BROKER", "ADDRESS", "LATENCY", "ERROR"]);
    for b in &health.brokers {
        let latency = b.latency.map(page::latency);
        brokers.row([or_dash(b.id), b.address.clone(), or_dash(latency), or_dash(b.error.as_deref())]);
    }
    let (cluster, controller) = (or_dash(health.cluster_id.as_deref()), or_dash(health.controller_id));
    format!("{status}  cluster {cluster}  controller {controller}\n\n{brokers}")
}
