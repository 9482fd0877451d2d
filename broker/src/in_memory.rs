//! Connections in memory, in place of sockets: with tokio's clock paused, nothing that a broker and
//! its clients do depends on real time.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Bytes that a connection buffers in each direction, as a socket does.
const BUFFER_BYTES: usize = 64 << 10;
/// Maximum number of connections that wait to be accepted.
const BACKLOG: usize = 1024;

/// The network of a broker that [listens in memory](crate::BrokerConfig::in_memory): opens
/// connections to its nodes. Cheap to clone.
///
/// ```
/// use ailurus_broker::{Broker, BrokerConfig, BrokerError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BrokerError> {
/// let broker = Broker::start(BrokerConfig::default().in_memory()).await?;
/// let network = broker.in_memory_network().expect("it listens in memory");
/// assert_eq!(broker.bootstrap(), "in-memory:9092");
/// let stream = network.connect(9092); // a tokio::io::DuplexStream, on which a client speaks Kafka's protocol
/// # assert!(stream.is_ok());
/// # broker.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct InMemoryNetwork(Arc<Mutex<Listeners>>);

/// The nodes that listen, by port.
type Listeners = BTreeMap<u16, mpsc::Sender<DuplexStream>>;

impl InMemoryNetwork {
    /// Connects to the node that listens on a port.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::ConnectionRefused`] if no node listens there, or too many connections wait
    /// to be accepted.
    pub fn connect(&self, port: u16) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = self.listeners().get(&port).cloned().ok_or_else(refused)?;
        let (client, server) = tokio::io::duplex(BUFFER_BYTES);
        listener.try_send(server).map_err(|_| refused())?;
        Ok(client)
    }

    /// Listens on a port until the receiver is dropped; replaces an earlier listener.
    pub(crate) fn listen(&self, port: u16) -> mpsc::Receiver<DuplexStream> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.listeners().insert(port, sender);
        receiver
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
