//! Tests on Apache Kafka's own servers: the command and the library beside Kafka's tools, its Java clients and kcat.
//!
//! ```text
//! cargo test --workspace --test kafka                              # all of it
//! cargo test --workspace --test kafka -- admin:: truncation::     # some
//! ```
//!
//! Each module starts the servers that it needs with `scripts/kafka-local.sh`, on free ports, and
//! removes them and their data at the end, whatever ends it. A test whose tools are missing is
//! reported as not run; with `CI=true` it fails. Settings:
//!
//! - `KAFKA_LIBS`, `KAFKA_VERSION` and others of `scripts/kafka-local.sh`; `KEEP=1` keeps the logs.
//! - `AILURUS_TEST_BROKERS`: the brokers of `interop`; without it, a node of its own.
//! - `AILURUS_INTEROP_RECORDS`: its number of records (5000).
//! - `AILURUS_KAFKA_SECONDS`: length of the load of `producer_faults`, `group_faults`,
//!   `transaction_faults` and `pipeline_faults` (15, 20, 10 and 20 s, of the last two for each of two
//!   versions); `AILURUS_KAFKA_RATE`: records a second of the first two (1000 and 500); `AILURUS_KAFKA_AT_LEAST_ONCE=1` allows repeated records in the
//!   first.
//! - `AILURUS_STATIC`: the binary that `static_binary` checks; see there.
//! - `AILURUS_TEST_NOT_RUN`: a file that gets a line for each module that was not run.

#![cfg(unix)]
#![allow(missing_docs, missing_debug_implementations, reason = "they are tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "they are tests")]
#![allow(clippy::disallowed_methods, reason = "real servers need real time")]

mod admin;
mod ailurus;
mod cluster;
mod group_faults;
mod interop;
mod load;
mod pipeline_faults;
mod producer_faults;
mod security;
mod static_binary;
mod tools;
mod transaction_faults;
mod transactions;
mod truncation;
mod wire;
