//! Errors of a test, in words for its output.

use std::fmt;
use std::io;
use std::time::Duration;

use ailurus_broker::BrokerError;

/// The error of a [`TestCluster`](crate::TestCluster). Its `Debug` text, which `unwrap` prints, is
/// its `Display` text.
///
/// ```
/// fn explain(error: ailurus_testing::TestError) -> String {
///     error.to_string()
/// }
/// ```
#[non_exhaustive]
pub enum TestError {
    /// The runtime has several threads.
    Runtime,
    /// The runtime can't be built.
    Start(io::Error),
    /// The broker rejected a change: a topic that exists, a node that does not.
    Broker(BrokerError),
    /// A client failed.
    Client(ailurus::Error),
    /// Records are pending.
    NotIdle(NotIdle),
}

/// The records that are pending after [`until_idle`](crate::TestCluster::until_idle) has waited for
/// as long as it may.
///
/// ```
/// fn explain(pending: &ailurus_testing::NotIdle) -> String {
///     format!("after {:?}: {}", pending.waited, pending.pending.join("; "))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotIdle {
    /// Time that has passed on the test's clock.
    pub waited: Duration,
    /// A line for each partition, and for each group that rebalances.
    pub pending: Vec<String>,
}

impl fmt::Display for NotIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pending after {:?} of test time:", self.waited)?;
        self.pending.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl fmt::Display for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime => f.write_str(
                "the clock of a runtime with several threads can't be paused: use #[tokio::test] without a flavor, or \
                 flavor = \"current_thread\"",
            ),
            Self::Start(e) => write!(f, "the runtime could not be built: {e}"),
            Self::Broker(e) => write!(f, "{e}"),
            Self::Client(e) => write!(f, "{e:#}"),
            Self::NotIdle(pending) => write!(f, "{pending}"),
        }
    }
}

impl fmt::Debug for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for TestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(e) => Some(e),
            Self::Broker(e) => Some(e),
            Self::Client(e) => Some(e),
            Self::Runtime | Self::NotIdle(_) => None,
        }
    }
}

impl From<BrokerError> for TestError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

impl From<ailurus::Error> for TestError {
    fn from(error: ailurus::Error) -> Self {
        Self::Client(error)
    }
}
