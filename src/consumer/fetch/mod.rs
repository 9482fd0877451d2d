//! Fetching: the `planner` decides what to fetch from which broker, with one `partition` and one `source` for each partition and
//! broker; the `tasks` send its requests, one `broker` each, and `deliver` what is decoded from the responses.

mod broker;
pub(super) mod decode;
mod deliver;
pub(super) mod partition;
mod planner;
mod requests;
mod session;
mod source;
pub(super) mod tasks;
