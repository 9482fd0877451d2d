//! Reads partitions, alone or as a member of a group.
//!
//! [`recv`](Consumer::recv) of a [`Consumer`] returns its events: which partitions are assigned,
//! revoked or lost, and their records. Its tasks run behind it: one for the membership (`group`,
//! whose `coordinator_task` drives the state machine of a `member`), and one per broker, which
//! fetches all partitions from there in one request (`fetch`, whose `tasks` carry out what the
//! `planner` decides). Their events wait in the `event_queue`, commits in `offsets`.
//!
//! Each assigned partition has a `lease`, whose epoch ends with the assignment. Records, start
//! offsets and commits carry it, and those of an earlier lease are dropped or refused: nothing of a
//! partition that went to another member is delivered or committed, while the partitions that stay
//! are read on.

mod builder;
mod command;
#[allow(clippy::module_inception, reason = "the type that the module is named after")]
mod consumer;
mod event;
mod event_queue;
mod fetch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group;
mod group_metadata;
mod lease;
mod memory;
mod metrics;
mod offsets;
mod running;
mod seek;
mod starting;
mod status;
mod stream;

pub use crate::assignor::{Assignments, Assignor, GroupMember, RebalanceProtocol, TopicLayout, Topics};
pub use crate::cluster::ConsumerGroupMetadata;
pub use crate::cluster::list_offsets::OffsetAndTimestamp;
pub use crate::cluster::offset_commit::OffsetAndMetadata;
pub use builder::{ConsumerBuilder, ReaderBuilder};
pub use consumer::Consumer;
pub use event::{ConsumerEvent, Message, Records, Revocation, StartOffset, Watermarks};
pub(crate) use group::subscription::{Subscription as MemberSubscription, decode_assignment as assigned_partitions};
pub use offsets::committer::{CommitHandle, Committer};
#[cfg(feature = "processor")]
pub(crate) use offsets::requests::{committed_request, decode_committed};
pub(crate) use running::{RunningConsumer, RunningPartition};
pub(crate) use seek::{end_offsets, resolve_start};
pub(crate) use starting::Starting;
pub(crate) use status::Status as ConsumerStatus;
pub use status::{ConsumerState, Problem};
pub use stream::MessageStream;
