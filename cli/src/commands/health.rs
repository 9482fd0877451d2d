//! `ailurus health`: is the cluster there.

use ailurus::health::Status;
use ailurus::{Config, RedpandaService};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

use crate::args::{Global, Json};
use crate::exit::Exit;
use crate::output::{self, Table, note, or_dash};
use crate::settings;

/// Ask every broker whether it answers. Exits with 0 if the cluster is healthy, else with 1.
#[derive(Debug, Args)]
pub struct Health {
    #[command(flatten)]
    output: Json,
}

pub async fn run(global: &Global, args: Health) -> anyhow::Result<Exit> {
    let config = settings::read_only(global)?;
    let service = match RedpandaService::connect(config.clone()).await {
        Ok(service) => service,
        Err(error) if args.output.json => {
            output::json(&unreachable(&config, &error.full()))?;
            return Ok(Exit::Failure);
        }
        Err(error) => return Err(error.into()),
    };
    let health = service.health().await;
    service.close(Duration::from_secs(5)).await?;
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

fn summary(health: &ailurus::Health) -> String {
    let status = serde_json::to_value(health.status).ok();
    let status = status.as_ref().and_then(Value::as_str).unwrap_or("unknown");
    let mut brokers = Table::new(["BROKER", "ADDRESS", "LATENCY", "ERROR"]);
    for b in &health.brokers {
        let latency = b.latency_ms.map(|ms| format!("{ms:.1} ms"));
        brokers.row([or_dash(b.id), b.address.clone(), or_dash(latency), or_dash(b.error.as_deref())]);
    }
    let (cluster, controller) = (or_dash(health.cluster_id.as_deref()), or_dash(health.controller_id));
    format!("{status}  cluster {cluster}  controller {controller}\n\n{brokers}")
}

/// The report on a cluster that was never reached, in the shape of [`ailurus::Health`].
pub fn unreachable(config: &Config, why: &str) -> Value {
    let brokers: Vec<_> = config.brokers.iter().map(|b| json!({"id": null, "address": b.to_string()})).collect();
    json!({
        "status": Status::Unhealthy,
        "clusterId": null,
        "controllerId": null,
        "brokers": brokers,
        "subscriptions": [],
        "problems": [why],
    })
}
