//! A target of fuzzing in what others commit: see `crate::fuzzing`.

use super::progress::Ended;

/// The metadata of a committed offset.
pub(crate) fn metadata(data: &[u8]) {
    _ = std::str::from_utf8(data).map(|text| Ended::decode(text, 7, 3));
}
