//! Dead letters of a cluster, as `ailurus dlq` and the page read, replay and discard them.

mod edit;
mod lock;
mod log;
mod marks;
mod pace;
mod replay;

pub use edit::{Change, Edit};
pub use lock::Lock;
pub use log::{DeadLetterRecord, Entry, Filter, Log, Reader, count_records, left_out, sort_by_key};
pub use marks::{Offsets, State};
pub use pace::{Pace, Rate};
pub use replay::{DEFAULT_MAX_REPLAYS, Limits, Ready, Refusal, Replay, Sent, complete, discard};
