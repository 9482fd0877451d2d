//! A node: its listener and connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::connection;
use crate::listener::{Listener, ReservedPort};
use crate::shared::Shared;

/// Pause after a failed accept, as for lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A node that listens. Dropping it aborts the listener and its connections.
#[derive(Debug)]
pub(crate) struct RunningNode {
    stop: oneshot::Sender<()>,
    task: Option<JoinHandle<Option<ReservedPort>>>,
}

impl RunningNode {
    pub fn start(shared: Arc<Shared>, node: i32, listener: Listener) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(shared, node, listener, stopped));
        Self { stop, task: Some(task) }
    }

    /// Stops listening, closes every connection and waits for it. Returns the port, reserved for a
    /// restart.
    pub async fn stop(mut self) -> Option<ReservedPort> {
        let task = self.task.take()?;
        let (stop, _) = oneshot::channel();
        drop(std::mem::replace(&mut self.stop, stop));
        // An error would be a panic of the accept loop, which has ended then too.
        task.await.ok().flatten()
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Serves until stopped; returns the port if it could be reserved.
async fn run(
    shared: Arc<Shared>,
    node: i32,
    mut listener: Listener,
    mut stopped: oneshot::Receiver<()>,
) -> Option<ReservedPort> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection::serve(shared.clone(), node, stream, peer));
                }
                Err(error) => {
                    tracing::warn!(node, %error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }
    let port = listener.close();
    connections.shutdown().await;
    port
}
