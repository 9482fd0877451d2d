//! Targets of fuzzing that are below the messages: see `crate::fuzzing`.

use super::api::{self, Line};
use super::sasl::fuzz as sasl_fuzz;
use super::schema;

pub(crate) use sasl_fuzz::exchange;

/// The line and the version that two bytes choose.
fn choose(line: u8, version: u8) -> (Line, i16) {
    let mut lines = Vec::new();
    api::each(|line| lines.push(line));
    let line = lines.swap_remove(usize::from(line) % lines.len());
    let (min, max) = line.versions;
    let version = min + i16::from(version) % (max - min + 1);
    (line, version)
}

/// The answer of an API: the first byte says of which, the second in which version. What is let through can be decoded without
/// a panic, and without memory for what is not there.
pub(crate) fn response(data: &[u8]) {
    let [line, version, body @ ..] = data else { return };
    let (line, version) = choose(*line, *version);
    if schema::check(body, line.fields, version, version >= line.flexible).is_ok() {
        (line.decode)(body, version);
    }
}

/// A response by chance, as [`response`] wants it.
#[cfg(test)]
pub(crate) fn sample(rng: &mut fastrand::Rng) -> Vec<u8> {
    let chosen = [rng.u8(..), rng.u8(..)];
    let (line, version) = choose(chosen[0], chosen[1]);
    let body = schema::sample(line.fields, version, version >= line.flexible, rng);
    [&chosen[..], &body].concat()
}
