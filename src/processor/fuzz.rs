//! A fuzz target for commit metadata, which other members write.

use super::offset_tracker::CompletedOffsets;

/// Decodes the metadata of a committed offset.
pub(crate) fn metadata(data: &[u8]) {
    _ = std::str::from_utf8(data).map(|text| CompletedOffsets::decode(text, 7, 3));
}
