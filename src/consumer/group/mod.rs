//! Membership in a group: the task that keeps it, the state machines that it drives, one for each group protocol, and the work of a
//! group's leader.
//!
//! `member` is one of the two: `classic`, or `kip848` for the protocol of KIP-848.

pub(super) mod assignor;
mod classic;
mod commit_task;
pub(super) mod coordinator_task;
mod initial_topics;
mod kip848;
mod leader;
mod member;
mod requests;
pub(super) mod subscription;
