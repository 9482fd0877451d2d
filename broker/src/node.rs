//! A node: its listener and connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::connection;
use crate::shared::Shared;

/// Pause after a failed accept, as for lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A node that listens. Dropping it aborts the listener and its connections.
#[derive(Debug)]
pub(crate) struct RunningNode {
    stop: oneshot::Sender<()>,
    task: Option<JoinHandle<Option<ReservedPort>>>,
}

impl RunningNode {
    pub fn start(shared: Arc<Shared>, node: i32, listener: TcpListener) -> Self {
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

/// A bound port that refuses connections: no other process can take it, nor the system use it for
/// an outgoing connection.
#[derive(Debug)]
pub(crate) struct ReservedPort(TcpSocket);

impl ReservedPort {
    fn reserve(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of the stopped node may still be closing.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(socket))
    }

    pub fn listen(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)
    }
}

pub(crate) async fn listen(address: SocketAddr) -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(address).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Serves until stopped; returns the port if it could be reserved.
async fn run(
    shared: Arc<Shared>,
    node: i32,
    listener: TcpListener,
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
    let address = listener.local_addr();
    drop(listener);
    let port = address.and_then(ReservedPort::reserve).ok();
    connections.shutdown().await;
    port
}
