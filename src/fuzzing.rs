//! What reads bytes that others wrote, each as a function that takes any bytes: it must neither panic nor hang, nor take memory
//! for what is not there. Only there for tests and for the targets in `fuzz/`, which run without an end; [`tests`] runs the same
//! functions from seeds.

use crate::processor::DeadLetter;
use crate::trace::TraceContext;
use crate::{config, consumer, processor, record, wire};

/// A target, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("response", response),
    ("records", records),
    ("headers", headers),
    ("group", group),
    ("dotenv", dotenv),
    ("login", login),
];

/// A broker's answer: its API, its version, its body.
pub fn response(data: &[u8]) {
    wire::fuzz::response(data);
}

/// The batches of a partition, of all formats and codecs.
pub fn records(data: &[u8]) {
    consumer::fuzz::records(data);
}

/// The headers of a record, and what is read out of them.
pub fn headers(data: &[u8]) {
    let Some(headers) = record::fuzz::headers(data) else { return };
    assert_eq!(headers.iter().count(), headers.len());
    _ = TraceContext::from_headers(&headers);
    if let Some(letter) = DeadLetter::parse(&headers) {
        _ = letter.replays();
        _ = letter.replay_headers();
    }
}

/// What the members of a group tell their leader, and what it makes of that; and what they commit with an offset.
pub fn group(data: &[u8]) {
    consumer::fuzz::group(data);
    processor::fuzz::metadata(data);
}

/// A `.env`.
pub fn dotenv(data: &[u8]) {
    config::fuzz::file(data);
}

/// A broker's part of a login.
pub fn login(data: &[u8]) {
    wire::fuzz::exchange(data);
}

#[cfg(test)]
#[path = "fuzzing_tests.rs"]
mod tests;
