//! Listeners of nodes: on a socket, or in memory.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A source of a node's connections.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    InMemory {
        connections: mpsc::Receiver<DuplexStream>,
        /// Port that the next client seems to have.
        next_peer: u16,
    },
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    InMemory(DuplexStream),
}

impl Listener {
    pub fn in_memory(connections: mpsc::Receiver<DuplexStream>) -> Self {
        Self::InMemory { connections, next_peer: 1 }
    }

    /// Accepts the next connection.
    ///
    /// # Cancellation
    ///
    /// Dropping the future loses no connection.
    pub async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| (Stream::Tcp(stream), peer)),
            Self::InMemory { connections, next_peer } => match connections.recv().await {
                Some(stream) => {
                    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, *next_peer));
                    *next_peer = next_peer.wrapping_add(1);
                    Ok((Stream::InMemory(stream), peer))
                }
                // The network listens for another node on this port, or is gone: none will follow.
                None => std::future::pending().await,
            },
        }
    }

    /// Stops listening; returns the port if it could be reserved.
    pub fn close(self) -> Option<ReservedPort> {
        let Self::Tcp(listener) = self else { return None };
        let address = listener.local_addr();
        drop(listener);
        address.and_then(ReservedPort::reserve).ok()
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
