//! `ailurus topic describe`.

use std::collections::BTreeMap;

use ailurus::admin::{PartitionInfo, TopicInfo};
use ailurus::{Admin, ErrorKind, StartOffset, TopicPartition};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::{self, Table, list, note, or_dash, thousands};

/// Bytes of each replica on its broker's disk, by partition and broker.
type Sizes = BTreeMap<i32, BTreeMap<i32, i64>>;

type Offsets = BTreeMap<TopicPartition, ailurus::Result<i64>>;

/// Offsets and sizes of a topic.
struct Found {
    first: Offsets,
    end: Offsets,
    /// `None` if the brokers don't report sizes.
    sizes: Option<Sizes>,
}

pub async fn run(admin: &Admin, name: &str, as_json: bool) -> anyhow::Result<Exit> {
    let topic = admin.describe_topic(name).await?;
    let all: Vec<_> = topic.partitions.iter().map(|p| TopicPartition::new(name, p.partition)).collect();
    let (first, end, (sizes, silent)) = tokio::try_join!(
        async { Ok(admin.list_offsets_each(&all, StartOffset::Earliest).await?) },
        async { Ok(admin.list_offsets_each(&all, StartOffset::Latest).await?) },
        sizes(admin, name),
    )?;
    let found = Found { first, end, sizes };
    if as_json {
        output::json(&found.as_value(&topic))?;
    } else {
        output::print(found.table(&topic))?;
    }
    let unknown = found.end.iter().filter_map(|(p, o)| Some((p, format!("{:#}", o.as_ref().err()?))));
    let missing = output::note_missing("offsets are not known", &unknown.collect::<Vec<_>>());
    let missing = output::note_missing("sizes on disk are not known", &silent) || missing;
    Ok(if missing { Exit::Failure } else { Exit::Success })
}

impl Found {
    fn as_value(&self, topic: &TopicInfo) -> Value {
        let partition = |p: &PartitionInfo| {
            json!({
                "partition": p.partition,
                "leader": p.leader,
                "replicas": p.replicas,
                "inSyncReplicas": p.in_sync_replicas,
                "firstOffset": offset(&self.first, topic, p),
                "endOffset": offset(&self.end, topic, p),
                "bytes": self.sizes.as_ref().map(|s| s.get(&p.partition)),
            })
        };
        let partitions: Vec<_> = topic.partitions.iter().map(partition).collect();
        json!({"name": topic.name, "internal": topic.internal, "partitions": partitions})
    }

    fn table(&self, topic: &TopicInfo) -> Table {
        let mut table = Table::new(["PARTITION", "LEADER", "REPLICAS", "IN-SYNC", "FIRST", "END", "BYTES"]);
        for p in &topic.partitions {
            let bytes = self.sizes.as_ref().and_then(|s| s.get(&p.partition)?.get(&p.leader?).copied());
            table.row([
                p.partition.to_string(),
                or_dash(p.leader),
                list(&p.replicas),
                list(&p.in_sync_replicas),
                or_dash(offset(&self.first, topic, p)),
                or_dash(offset(&self.end, topic, p)),
                or_dash(bytes.and_then(|b| u64::try_from(b).ok()).map(thousands)),
            ]);
        }
        table
    }
}

fn offset(offsets: &Offsets, topic: &TopicInfo, p: &PartitionInfo) -> Option<i64> {
    offsets.get(&TopicPartition::new(topic.name.as_str(), p.partition))?.as_ref().ok().copied()
}

/// Returns the sizes of replicas, and the brokers that did not report theirs. If brokers don't serve the request, there are
/// no sizes, and a note says so.
async fn sizes(admin: &Admin, name: &str) -> anyhow::Result<(Option<Sizes>, Vec<(i32, String)>)> {
    let (mut sizes, mut silent) = (Sizes::new(), Vec::new());
    for (broker, dirs) in admin.log_dirs_by_broker(Some(name)).await? {
        match dirs {
            Ok(dirs) => {
                for replica in dirs.iter().flat_map(|d| &d.replicas) {
                    *sizes.entry(replica.partition).or_default().entry(broker).or_default() += replica.bytes;
                }
            }
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                note(format_args!("sizes on disk are not known: {e:#}"));
                return Ok((None, Vec::new()));
            }
            Err(e) => silent.push((broker, format!("{e:#}"))),
        }
    }
    Ok((Some(sizes), silent))
}
