//! `ailurus topic describe`.

use std::collections::BTreeMap;

use ailurus::admin::PartitionInfo;
use ailurus::{Admin, ErrorKind, StartOffset, TopicPartition};
use serde_json::json;

use crate::output::{self, Table, list, note, or_dash, thousands};

/// Bytes of each replica on its broker's disk, by partition and broker.
type Sizes = BTreeMap<i32, BTreeMap<i32, i64>>;

pub async fn run(admin: &Admin, name: &str, as_json: bool) -> anyhow::Result<()> {
    let topic = admin.describe_topic(name).await?;
    // A partition without a leader has no offsets to tell.
    let led = topic.partitions.iter().filter(|p| p.leader.is_some());
    let led: Vec<_> = led.map(|p| TopicPartition::new(name, p.partition)).collect();
    let first = admin.list_offsets(&led, StartOffset::Earliest).await?;
    let end = admin.list_offsets(&led, StartOffset::Latest).await?;
    let of = |offsets: &BTreeMap<TopicPartition, i64>, p| offsets.get(&TopicPartition::new(name, p)).copied();
    let sizes = sizes(admin, name).await?;
    if as_json {
        let partition = |p: &PartitionInfo| {
            json!({
                "partition": p.partition,
                "leader": p.leader,
                "replicas": p.replicas,
                "inSyncReplicas": p.in_sync_replicas,
                "firstOffset": of(&first, p.partition),
                "endOffset": of(&end, p.partition),
                "bytes": sizes.as_ref().map(|s| s.get(&p.partition)),
            })
        };
        let partitions: Vec<_> = topic.partitions.iter().map(partition).collect();
        output::json(&json!({"name": topic.name, "internal": topic.internal, "partitions": partitions}))?;
        return Ok(());
    }
    let mut table = Table::new(["PARTITION", "LEADER", "REPLICAS", "IN-SYNC", "FIRST", "END", "BYTES"]);
    for p in &topic.partitions {
        let bytes = sizes.as_ref().and_then(|s| s.get(&p.partition)?.get(&p.leader?).copied());
        table.row([
            p.partition.to_string(),
            or_dash(p.leader),
            list(&p.replicas),
            list(&p.in_sync_replicas),
            or_dash(of(&first, p.partition)),
            or_dash(of(&end, p.partition)),
            or_dash(bytes.and_then(|b| u64::try_from(b).ok()).map(thousands)),
        ]);
    }
    output::print(table)?;
    Ok(())
}

/// None where a broker can't tell: then why is said.
async fn sizes(admin: &Admin, name: &str) -> anyhow::Result<Option<Sizes>> {
    let dirs = match admin.log_dirs(Some(name)).await {
        Ok(dirs) => dirs,
        Err(e) if e.is_unknown_topic() || e.kind() == ErrorKind::Closed => return Err(e.into()),
        Err(e) => {
            note(format_args!("what the replicas take on disk is not known: {}", e.full()));
            return Ok(None);
        }
    };
    let mut sizes = Sizes::new();
    for (broker, replica) in dirs.iter().flat_map(|d| d.replicas.iter().map(|r| (d.broker, r))) {
        *sizes.entry(replica.partition).or_default().entry(broker).or_default() += replica.bytes;
    }
    Ok(Some(sizes))
}
