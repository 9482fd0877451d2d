//! Fuzzing targets of the wire: see `crate::fuzzing`.

use super::api::{self, ApiResponse};
use super::sasl::fuzz as sasl_fuzz;
use super::validate;

pub(crate) use sasl_fuzz::exchange;

/// Returns the API and the version that two bytes choose.
fn choose(api: u8, version: u8) -> (ApiResponse, i16) {
    let mut all = Vec::new();
    api::for_each_response(|api| all.push(api));
    let api = all.swap_remove(usize::from(api) % all.len());
    let (min, max) = api.versions;
    let version = min + i16::from(version) % (max - min + 1);
    (api, version)
}

/// Validates and decodes a response; the first byte chooses the API, the second the version. A
/// valid response is decoded without a panic, and without memory for elements that are missing.
pub(crate) fn response(data: &[u8]) {
    let [api, version, body @ ..] = data else { return };
    let (api, version) = choose(*api, *version);
    if validate::check(body, api.fields, version, version >= api.flexible).is_ok() {
        (api.decode)(body, version);
    }
}

/// Returns a random response, as [`response`] takes it.
#[cfg(test)]
pub(crate) fn sample(rng: &mut fastrand::Rng) -> Vec<u8> {
    let chosen = [rng.u8(..), rng.u8(..)];
    let (api, version) = choose(chosen[0], chosen[1]);
    let body = validate::sample(api.fields, version, version >= api.flexible, rng);
    [&chosen[..], &body].concat()
}
