//! Exactly-once pipelines: handlers return records, which are written in the transaction that
//! commits the offsets of those they were made from.
//!
//! Workers run handlers as in any subscription. What they have handled goes to the
//! [collector](collector) of its partition; one [task](task) per subscription takes from all
//! collectors at once, and writes a transaction.

mod collector;
mod options;
mod outputs;
mod task;
mod transactions;

pub(super) use collector::Payload;
pub(super) use options::start;
pub use options::{ExactlyOnce, Pipeline};
pub use outputs::Outputs;
pub(super) use transactions::{AbortOnDrop, PartitionCollector, Transactions};
