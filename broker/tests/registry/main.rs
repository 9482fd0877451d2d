//! The schema registry: its API, beside a real registry where `AILURUS_TEST_REGISTRY` has the URL of one, and its faults.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod client;
mod conformance;
mod faults;
mod own;
