//! One node: its listener and the connections it accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::conn;
use crate::shared::Shared;

/// How long to wait when no connection can be accepted, as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// A node that listens. Dropping it ends the listener and its connections.
#[derive(Debug)]
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(shared: Arc<Shared>, node: i32, listener: TcpListener) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(shared, node, listener, stopped));
        Self { stop, task: Some(task) }
    }

    /// Stops listening, closes every connection, and waits until that is done.
    pub async fn stop(mut self) {
        if let Some(task) = self.task.take() {
            let (stop, _) = oneshot::channel();
            drop(std::mem::replace(&mut self.stop, stop));
            // An error would be a panic of the accept loop, and then it has ended too.
            let _ = task.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

pub(crate) async fn listen(address: SocketAddr) -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(address).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

async fn run(shared: Arc<Shared>, node: i32, listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(conn::serve(shared.clone(), node, stream, peer));
                }
                Err(error) => {
                    tracing::warn!(node, %error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}
