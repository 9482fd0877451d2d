//! Committed offsets: commits that wait, in their order, the handle that an application commits by, and requests for what is committed.

mod commit_queue;
pub(super) mod commits;
pub(super) mod committer;
pub(super) mod requests;
