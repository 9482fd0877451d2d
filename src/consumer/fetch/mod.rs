//! Fetching: which partitions are asked for where (`planner`, with a `partition` and a `source` for each partition and broker), the tasks
//! that send the requests, and what is decoded of the responses.

pub(super) mod decode;
pub(super) mod partition;
mod planner;
mod requests;
mod session;
mod source;
pub(super) mod tasks;
