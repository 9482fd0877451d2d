//! Looks up topics that are not known yet. Those that are wanted while a request is in flight share
//! the next one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::snapshot::TopicMeta;
use super::{Cluster, log_created};
use crate::code;
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of topics in one request.
const TOPICS_PER_REQUEST: usize = 1000;
/// Maximum number of lookups in the task's queue.
pub(super) const LOOKUP_QUEUE: usize = 1000;

/// A topic, or the broker's error code for it.
pub(super) type LookupResult = Result<Arc<TopicMeta>, i16>;

/// A caller's request to look up a topic.
#[derive(Debug)]
pub(super) struct LookupRequest {
    name: Arc<str>,
    /// True if the broker may create it.
    create: bool,
    reply: oneshot::Sender<Result<LookupResult>>,
}

impl Cluster {
    /// Looks up one topic, in one request with those of other callers.
    pub(super) async fn lookup(&self, name: &Arc<str>, create: bool) -> Result<LookupResult> {
        let closed = || Error::new(ErrorKind::Closed, "the client is closed");
        let (reply, result) = oneshot::channel();
        let lookup = LookupRequest { name: Arc::clone(name), create, reply };
        self.lookups.send(lookup).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }
}

/// Serves lookups, one request at a time, until the client is closed.
pub(super) async fn serve(cluster: Arc<Cluster>, mut lookups: mpsc::Receiver<LookupRequest>) {
    let cancel = cluster.cancel.clone();
    let work = async {
        let mut batch = Vec::new();
        while lookups.recv_many(&mut batch, TOPICS_PER_REQUEST).await > 0 {
            batch.retain(|l| !l.reply.is_closed()); // the caller was dropped
            let (creating, plain): (Vec<_>, Vec<_>) = batch.drain(..).partition(|l| l.create);
            for (lookups, create) in [(plain, false), (creating, true)] {
                if !lookups.is_empty() {
                    serve_batch(&cluster, lookups, create).await;
                }
            }
        }
    };
    cancel.run_until_cancelled(work).await;
}

async fn serve_batch(cluster: &Cluster, lookups: Vec<LookupRequest>, create: bool) {
    let mut callers = BTreeMap::<Arc<str>, Vec<_>>::new();
    for l in lookups {
        callers.entry(l.name).or_default().push(l.reply);
    }
    let names: Vec<_> = callers.keys().cloned().collect();
    let outcome = cluster.metadata(Some(&names), create).await.map(|response| {
        let codes: HashMap<Arc<str>, i16> = response.topics.iter().filter_map(name_and_code).collect();
        let found = |name: &Arc<str>| codes.get(name).copied().unwrap_or(code::UNKNOWN_TOPIC_OR_PARTITION);
        names.iter().filter(|name| found(name) == 0).for_each(|name| _ = cluster.interests.add(name, Instant::now()));
        let before = cluster.snapshot();
        cluster.merge_metadata(response);
        if create {
            // An earlier lookup, without `create`, has found that it did not exist.
            let snapshot = cluster.snapshot();
            let new = names.iter().filter(|name| before.topics.get(name).is_none());
            new.filter_map(|name| snapshot.topics.get(name)).for_each(|topic| log_created(topic));
        }
        codes
    });
    let snapshot = cluster.snapshot();
    for (name, replies) in callers {
        let found = match &outcome {
            Err(e) => Err(e.clone()),
            Ok(codes) => {
                let code = codes.get(&name).copied().unwrap_or(code::UNKNOWN_TOPIC_OR_PARTITION);
                Ok(match (code, snapshot.topics.get(&name)) {
                    (0, Some(topic)) => Ok(Arc::clone(topic)),
                    (0, None) => Err(code::UNKNOWN_TOPIC_OR_PARTITION),
                    (code, _) => Err(code),
                })
            }
        };
        for reply in replies {
            _ = reply.send(found.clone()); // the caller may be dropped
        }
    }
}

fn name_and_code(topic: &MetadataResponseTopic) -> Option<(Arc<str>, i16)> {
    Some((topic.name.as_ref()?.0.as_str().into(), topic.error_code))
}
