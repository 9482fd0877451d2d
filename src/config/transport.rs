//! The transport of connections to brokers: TCP, or, in tests, pipes in memory.

use std::io;
#[cfg(feature = "testing")]
use std::sync::Arc;

use tokio::io::DuplexStream;

use super::BrokerAddr;

/// The transport of broker connections. The default is TCP, and the only one without the feature
/// `testing`.
#[derive(Clone, Default)]
pub struct Transport {
    /// None is TCP.
    #[cfg(feature = "testing")]
    connect: Option<Arc<ConnectFn>>,
}

#[cfg(feature = "testing")]
type ConnectFn = dyn Fn(&BrokerAddr) -> io::Result<DuplexStream> + Send + Sync;

impl Transport {
    /// Creates a transport whose connections are pipes: `connect` returns the client's end of one.
    /// For tests on a paused clock: the crate `ailurus-testing` does it.
    #[cfg(feature = "testing")]
    pub fn in_memory(connect: impl Fn(&BrokerAddr) -> io::Result<DuplexStream> + Send + Sync + 'static) -> Self {
        crate::timestamp::follow_tokio_clock();
        Self { connect: Some(Arc::new(connect)) }
    }

    /// Opens a pipe; `None` if the transport is TCP.
    #[cfg(feature = "testing")]
    pub(crate) fn open(&self, addr: &BrokerAddr) -> Option<io::Result<DuplexStream>> {
        self.connect.as_ref().map(|connect| connect(addr))
    }

    /// Returns `None`: the transport is TCP.
    #[cfg(not(feature = "testing"))]
    #[allow(clippy::unused_self, reason = "the feature `testing` uses it")]
    pub(crate) fn open(&self, _: &BrokerAddr) -> Option<io::Result<DuplexStream>> {
        None
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[cfg(feature = "testing")]
        if self.connect.is_some() {
            return f.write_str("in memory");
        }
        f.write_str("TCP")
    }
}

impl PartialEq for Transport {
    #[cfg(feature = "testing")]
    fn eq(&self, other: &Self) -> bool {
        match (&self.connect, &other.connect) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    #[cfg(not(feature = "testing"))]
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Transport {}
