//! Committed offsets: the queue of commits, the handle that an application commits by, and requests
//! for committed offsets.

mod commit_queue;
pub(super) mod commits;
pub(super) mod committer;
pub(super) mod requests;
