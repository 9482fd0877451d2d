//! Membership in a group: the task that maintains it, the state machines it drives, and the work of
//! a group's leader.
//!
//! `member` is the interface of both state machines, `session` their state and `protocol` the
//! transitions that they share; `classic` and `kip848` are the two protocols.

pub(super) mod assignor;
mod awaiting_offsets;
mod classic;
mod commit_task;
mod connections;
pub(super) mod coordinator_task;
mod initial_topics;
mod kip848;
mod leader;
mod member;
mod membership_requests;
mod protocol;
mod requests;
mod session;
pub(super) mod subscription;
#[cfg(test)]
mod test_bed;
