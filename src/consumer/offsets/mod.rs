//! Committed offsets: the queue of commits, the handle that an application commits by, and requests
//! for committed offsets.

pub(super) mod commit_queue;
pub(super) mod committer;
pub(super) mod requests;
