//! Commands from a consumer to its group's task.

use tokio::sync::oneshot;

use crate::error::Result;

#[derive(Debug)]
pub(crate) enum Command {
    /// Leave the group for this reason, and join again when the application polls.
    LeaveTemporarily(String),
    Leave(oneshot::Sender<Result<()>>),
}
