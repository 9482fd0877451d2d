//! Failures of the codecs.

/// A failure to decompress a batch.
#[derive(Debug)]
pub(super) enum CodecError {
    /// The data holds more than is allowed.
    TooLarge,
    Invalid(Box<dyn std::error::Error + Send + Sync>),
}

impl CodecError {
    pub(super) fn invalid(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Invalid(e.into())
    }
}
