//! `ailurus cluster`: the brokers, and the APIs of each.

use std::collections::BTreeMap;

use ailurus::admin::{ApiSupport, BrokerDescription, ClusterDescription, LogDir, VersionRange};
use ailurus::{Admin, ErrorKind};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::exit::{Exit, NotFound};
use crate::options::{Global, Json};
use crate::output::{self, Table, note, or_dash, thousands};
use crate::settings;

/// Describe the cluster and its brokers: addresses, racks, versions, disk use, APIs.
#[derive(Debug, Args)]
pub struct Cluster {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Describe the cluster's id and controller, and each broker. Exits with 1 if one does not respond.
    ///
    /// VERSION is the Kafka release that a broker reports; Redpanda reports none. BYTES is the size of its replicas, FREE the
    /// free space on their volumes, where brokers report it.
    Describe {
        #[command(flatten)]
        output: Json,
    },
    /// List the APIs of each broker: the versions that it serves, those of this client, and the one that is used.
    ///
    /// USED is "no" for an API that this client needs and the broker does not serve, and - for one that this client does not
    /// use. Exits with 1 if a broker does not respond; the others are listed.
    #[command(after_help = "\
Examples:
  ailurus cluster api-versions
  ailurus cluster api-versions --broker 1 --json | jq '.[0].apis[] | select(.client and .used == null)'")]
    ApiVersions {
        /// Id of the broker [default: all].
        #[arg(long, value_name = "ID")]
        broker: Option<i32>,
        #[command(flatten)]
        output: Json,
    },
}

pub async fn run(global: &Global, args: Cluster) -> anyhow::Result<Exit> {
    let act = async |admin: &Admin| match args.action {
        Action::Describe { output } => describe(admin, output.json).await,
        Action::ApiVersions { broker, output } => api_versions(admin, broker, output.json).await,
    };
    settings::admin(global, act).await
}

/// Disk use of a broker.
#[derive(Debug, Default)]
struct Disk {
    replicas: usize,
    bytes: i64,
    free: Option<i64>,
}

type Disks = BTreeMap<i32, Disk>;
type Dirs = BTreeMap<i32, ailurus::Result<Vec<LogDir>>>;

async fn describe(admin: &Admin, as_json: bool) -> anyhow::Result<Exit> {
    let (cluster, dirs) = tokio::try_join!(admin.describe_cluster(), admin.log_dirs_by_broker(None))?;
    let (disks, silent) = disks(dirs, &cluster);
    if as_json {
        output::json(&as_value(&cluster, disks.as_ref())?)?;
    } else {
        output::print(table(&cluster, disks.as_ref()))?;
    }
    let failed: Vec<_> = cluster.brokers.iter().filter_map(|b| Some((b.id, b.error.as_ref()?))).collect();
    for (id, why) in &failed {
        note(format_args!("broker {id} does not respond: {why}"));
    }
    let silent = output::note_missing("disk use of a broker is not known", &silent);
    Ok(if failed.is_empty() && !silent { Exit::Success } else { Exit::Failure })
}

/// Returns the disk use of brokers, and the reasons of those that did not report it, apart from brokers known not to respond.
/// If brokers don't serve the request, there is none, and a note says so.
fn disks(dirs: Dirs, cluster: &ClusterDescription) -> (Option<Disks>, Vec<(i32, String)>) {
    let (mut disks, mut silent) = (Disks::new(), Vec::new());
    for (id, dirs) in dirs {
        match dirs {
            Ok(dirs) => drop(disks.insert(id, disk(&dirs))),
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                note(format_args!("disk use is not known: {e:#}"));
                return (None, Vec::new());
            }
            Err(_) if cluster.brokers.iter().any(|b| b.id == id && b.error.is_some()) => {}
            Err(e) => silent.push((id, format!("{e:#}"))),
        }
    }
    (Some(disks), silent)
}

fn disk(dirs: &[LogDir]) -> Disk {
    let mut disk = Disk::default();
    for dir in dirs {
        disk.replicas += dir.replicas.len();
        disk.bytes += dir.replicas.iter().map(|r| r.bytes).sum::<i64>();
        disk.free = dir.usable_bytes.map(|free| disk.free.unwrap_or_default() + free).or(disk.free);
    }
    disk
}

fn as_value(cluster: &ClusterDescription, disks: Option<&Disks>) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(cluster)?;
    for (described, broker) in value["brokers"].as_array_mut().into_iter().flatten().zip(&cluster.brokers) {
        let disk = disks.and_then(|d| d.get(&broker.id));
        described["replicas"] = json!(disk.map(|d| d.replicas));
        described["bytes"] = json!(disk.map(|d| d.bytes));
        described["usableBytes"] = json!(disk.and_then(|d| d.free));
    }
    Ok(value)
}

fn table(cluster: &ClusterDescription, disks: Option<&Disks>) -> String {
    let mut brokers = Table::new(["BROKER", "ADDRESS", "RACK", "VERSION", "REPLICAS", "BYTES", "FREE"]);
    for b in &cluster.brokers {
        let disk = disks.and_then(|d| d.get(&b.id));
        let number = |n: i64| thousands(u64::try_from(n).unwrap_or_default());
        brokers.row([
            b.id.to_string(),
            b.address.clone(),
            or_dash(b.rack.as_deref()),
            or_dash(b.version.as_deref()),
            or_dash(disk.map(|d| d.replicas)),
            or_dash(disk.map(|d| number(d.bytes))),
            or_dash(disk.and_then(|d| d.free).map(number)),
        ]);
    }
    let (id, controller) = (or_dash(cluster.cluster_id.as_deref()), or_dash(cluster.controller));
    let count = cluster.brokers.len();
    format!("cluster {id}  controller {controller}  brokers {count}{}\n\n{brokers}", features(&cluster.brokers))
}

/// Returns the finalized features, from the first broker that reports them.
fn features(brokers: &[BrokerDescription]) -> String {
    let reported = brokers.iter().map(|b| &b.features).find(|f| !f.is_empty());
    let one = |(name, level): (&String, &i16)| format!("{name} {level}");
    let list = reported.into_iter().flatten().map(one).collect::<Vec<_>>().join(", ");
    if list.is_empty() { list } else { format!("\nfeatures {list}") }
}

async fn api_versions(admin: &Admin, only: Option<i32>, as_json: bool) -> anyhow::Result<Exit> {
    let mut brokers = admin.describe_cluster().await?.brokers;
    if let Some(id) = only {
        brokers.retain(|b| b.id == id);
        if brokers.is_empty() {
            return Err(NotFound(format!("--broker is {id}: the cluster has no such broker now")).into());
        }
    }
    let (mut all, mut silent) = (Vec::new(), Vec::new());
    for b in brokers {
        // It did not respond to the same request a moment ago.
        if let Some(why) = b.error {
            silent.push((b.id, why));
            continue;
        }
        match admin.api_versions(b.id).await {
            Ok(apis) => all.push((b, apis)),
            Err(e) => silent.push((b.id, format!("{e:#}"))),
        }
    }
    if as_json {
        let api = |a: &ApiSupport| json!({"key": a.key, "name": a.name, "broker": a.broker, "client": a.client, "used": a.usable()});
        let broker = |(b, apis): &(BrokerDescription, Vec<ApiSupport>)| json!({"broker": b.id, "address": b.address, "apis": apis.iter().map(api).collect::<Vec<_>>()});
        output::json(&all.iter().map(broker).collect::<Vec<_>>())?;
    }
    for (n, (b, apis)) in all.iter().enumerate().filter(|_| !as_json) {
        let gap = if n > 0 { "\n" } else { "" };
        output::print(format_args!("{gap}broker {} at {}\n\n{}", b.id, b.address, versions(apis)))?;
    }
    Ok(if output::note_missing("a broker does not respond", &silent) { Exit::Failure } else { Exit::Success })
}

fn versions(apis: &[ApiSupport]) -> Table {
    let mut table = Table::new(["KEY", "API", "BROKER", "CLIENT", "USED"]);
    let range = |r: Option<VersionRange>| or_dash(r.map(|r| format!("{}-{}", r.min, r.max)));
    for a in apis {
        let used = match (a.usable(), a.client) {
            (None, Some(_)) => "no".to_owned(),
            (used, _) => or_dash(used),
        };
        table.row([a.key.to_string(), a.name.clone(), range(a.broker), range(a.client), used]);
    }
    table
}
