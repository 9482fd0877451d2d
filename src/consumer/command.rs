//! Commands from a consumer to its group's task.

use tokio::sync::oneshot;

use crate::error::Result;

/// What the front asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Leave the group for now, for what is said, and join again when the program asks for the next event.
    Expel(String),
    Leave(oneshot::Sender<Result<()>>),
}
