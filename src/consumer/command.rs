//! Commands from a consumer to its group's task.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use crate::error::Result;

#[derive(Debug)]
pub(crate) enum Command {
    /// Leave the group for this reason, and join again when the application polls.
    LeaveTemporarily(String),
    /// A coordinator refuses offsets of this generation, or member epoch: it may not have heard of a newer one.
    RefreshGeneration(i32),
    /// Subscribe to these topics instead. Those of `new_topics` that have no committed offset are read
    /// from their beginning.
    SetTopics {
        topics: BTreeSet<String>,
        new_topics: BTreeSet<String>,
    },
    Leave(oneshot::Sender<Result<()>>),
}
