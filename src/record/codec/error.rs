//! Failures of the codecs.

#[derive(Debug)]
pub(super) enum CodecError {
    TooLarge,
    Invalid(Box<dyn std::error::Error + Send + Sync>),
}

impl CodecError {
    pub(super) fn invalid(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Invalid(e.into())
    }
}
