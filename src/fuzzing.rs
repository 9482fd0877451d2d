//! The readers of external bytes, each as a function of any bytes: it must neither panic nor hang,
//! nor allocate for claimed sizes. Built only for tests and for the targets in `fuzz/`; [`tests`]
//! runs the same functions from seeds.

use crate::processor::DeadLetter;
use crate::trace::TraceContext;
use crate::{config, consumer, processor, record, wire};

/// A target and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("response", response),
    ("records", records),
    ("headers", headers),
    ("group", group),
    ("dotenv", dotenv),
    ("login", login),
];

/// Decodes a broker's response.
pub fn response(data: &[u8]) {
    wire::fuzz::response(data);
}

/// Decodes fetched batches, of all formats and codecs.
pub fn records(data: &[u8]) {
    consumer::fuzz::records(data);
}

/// Reads the headers of a record, and the trace context and dead letter in them.
pub fn headers(data: &[u8]) {
    let Some(headers) = record::fuzz::headers(data) else { return };
    assert_eq!(headers.iter().count(), headers.len());
    _ = TraceContext::from_headers(&headers);
    if let Some(dead_letter) = DeadLetter::parse(&headers) {
        _ = dead_letter.replays();
        _ = dead_letter.replay_headers();
    }
}

/// Decodes what members of a group send to their leader, assigns by it, and decodes the metadata of
/// committed offsets.
pub fn group(data: &[u8]) {
    consumer::fuzz::group(data);
    processor::fuzz::metadata(data);
}

/// Reads a `.env` file.
pub fn dotenv(data: &[u8]) {
    config::fuzz::file(data);
}

/// Runs a login against a broker's messages.
pub fn login(data: &[u8]) {
    wire::fuzz::exchange(data);
}

#[cfg(test)]
mod tests;
