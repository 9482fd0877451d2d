//! Tests of applications on [`ailurus`]: an application's own subscriptions run against an embedded
//! broker, in memory and on tokio's paused clock. An hour of retries, an expired session or a
//! database that is down takes milliseconds, and the test waits for what must happen, not for a
//! time.
//!
//! ```
//! use ailurus::Message;
//! use ailurus_testing::{Api, TestCluster, TestError, fault};
//!
//! async fn bill(message: Message) -> Result<(), String> {
//!     // … the application's own handler
//!     if message.value.as_deref() == Some(b"broken") { Err("no such price".into()) } else { Ok(()) }
//! }
//!
//! #[tokio::main(flavor = "current_thread")] // in a test: #[tokio::test]
//! async fn main() -> Result<(), TestError> {
//!     let cluster = TestCluster::start().await?;
//!     cluster.topic("orders", 3)?;
//!     let client = cluster.client("billing-1").await?;
//!     let _subscription = client.processor("billing").subscribe(["orders"], bill).await?;
//!
//!     cluster.inject(fault::not_coordinator().on(Api::OffsetCommit).times(3));
//!     cluster.send("orders", "o-1", "paid").await?;
//!     cluster.send("orders", "o-2", "broken").await?;
//!     cluster.until_idle().await?; // all retries have failed, everything is committed
//!
//!     assert_eq!(cluster.handled("billing").len(), 2);
//!     let letters = cluster.letters("orders");
//!     assert_eq!(letters[0].details.error, "no such price");
//!     Ok(())
//! }
//! ```
//!
//! # The clock
//!
//! [`TestCluster::start`] pauses tokio's clock. From then on, timers fire at once and in their order
//! whenever nothing else can run; [`TestCluster::advance`] lets a time pass. A runtime of one thread
//! is needed: `#[tokio::test]` is one. Code that reads [`std::time::Instant`] does not see this time:
//! use [`tokio::time::Instant`] in what is under test. [`Timestamp::now`](ailurus::Timestamp::now),
//! record timestamps, and those of the broker follow the paused clock.
//!
//! Whatever waits for the world outside (a socket, a database, a process) does not hold the clock,
//! so that a client's timeouts expire at once. `spawn_blocking` does hold it.
//!
//! # What is the same in each run
//!
//! The order in which tasks run and timers fire, faults, backoffs and keyless partitions follow from
//! the test and the [seed](TestClusterBuilder::seed). Not fixed are: ids (UUIDs) and the wall clock's
//! date, the order of `HashMap`s, the branch that `tokio::select!` begins with, and work on blocking
//! threads (batches above 64 KiB that are compressed or decoded). [`run`] fixes the branches of
//! `select!` too, when the test is compiled with `--cfg tokio_unstable`.

mod clock;
mod cluster;
mod error;
pub mod fault;
mod idle;
mod inject;
mod inspect;

pub use clock::run;
pub use cluster::{TestCluster, TestClusterBuilder};
pub use error::{NotIdle, TestError};
pub use fault::{Api, Fault};
pub use inject::InjectedFault;
pub use inspect::{DeadLetterRecord, StoredRecord};

// The code in the guide compiles: it is documentation when doctests are collected, and only then.
#[cfg(doctest)]
#[doc = include_str!("../../docs/testing.md")]
mod guide {}
