//! Errors of the API: an HTTP status, Confluent's error code and a message.

use std::fmt;

use super::subject::Subject;

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub status: u16,
    pub code: u32,
    pub message: String,
}

impl ApiError {
    /// An error whose code begins with its status, as 40401 does.
    fn of(code: u32, message: impl Into<String>) -> Self {
        let status = u16::try_from(if code < 1000 { code } else { code / 100 }).unwrap_or(500);
        Self { status, code, message: message.into() }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::of(400, message)
    }

    pub fn unauthorized() -> Self {
        Self::of(401, "Unauthorized")
    }

    pub fn unknown_path() -> Self {
        Self::of(404, "HTTP 404 Not Found")
    }

    pub fn method_not_allowed() -> Self {
        Self::of(405, "HTTP 405 Method Not Allowed")
    }

    pub fn not_acceptable() -> Self {
        Self::of(406, "HTTP 406 Not Acceptable")
    }

    pub fn too_large(max_bytes: usize) -> Self {
        Self::of(413, format!("The request is longer than {max_bytes} bytes"))
    }

    pub fn unsupported_media_type() -> Self {
        Self::of(415, "HTTP 415 Unsupported Media Type")
    }

    pub fn subject_not_found(subject: &Subject) -> Self {
        Self::of(40401, format!("Subject '{subject}' not found."))
    }

    pub fn version_not_found(version: impl fmt::Display) -> Self {
        Self::of(40402, format!("Version {version} not found."))
    }

    pub fn schema_not_found() -> Self {
        Self::of(40403, "Schema not found")
    }

    pub fn schema_id_not_found(id: impl fmt::Display) -> Self {
        Self::of(40403, format!("Schema {id} not found"))
    }

    pub fn subject_soft_deleted(subject: &Subject) -> Self {
        Self::of(40404, format!("Subject '{subject}' was soft deleted. Set permanent=true to delete permanently"))
    }

    pub fn subject_not_soft_deleted(subject: &Subject) -> Self {
        Self::of(40405, format!("Subject '{subject}' was not deleted first before being permanently deleted"))
    }

    pub fn version_soft_deleted(subject: &Subject, version: u32) -> Self {
        let message =
            format!("Subject '{subject}' Version {version} was soft deleted. Set permanent=true to delete permanently");
        Self::of(40406, message)
    }

    pub fn version_not_soft_deleted(subject: &Subject, version: u32) -> Self {
        let message =
            format!("Subject '{subject}' Version {version} was not deleted first before being permanently deleted");
        Self::of(40407, message)
    }

    pub fn compatibility_not_configured(subject: &Subject) -> Self {
        Self::of(40408, format!("Subject '{subject}' does not have subject-level compatibility configured"))
    }

    pub fn mode_not_configured(subject: &Subject) -> Self {
        Self::of(40409, format!("Subject '{subject}' does not have subject-level mode configured"))
    }

    pub fn incompatible(messages: &[String]) -> Self {
        let details = messages.join(", ");
        Self::of(409, format!("Schema being registered is incompatible with an earlier schema; details: [{details}]"))
    }

    pub fn invalid_schema(message: impl Into<String>) -> Self {
        Self::of(42201, message)
    }

    pub fn invalid_version(version: &str) -> Self {
        let message = format!(
            "The specified version '{version}' is not a valid version id. Allowed values are between [1, 2^31-1] and \
             the string \"latest\""
        );
        Self::of(42202, message)
    }

    pub fn invalid_compatibility() -> Self {
        let message = "Invalid compatibility level. Valid values are none, backward, forward, full, \
                       backward_transitive, forward_transitive, and full_transitive";
        Self::of(42203, message)
    }

    pub fn invalid_mode() -> Self {
        Self::of(42204, "Invalid mode. Valid values are READWRITE, READONLY and IMPORT.")
    }

    pub fn not_permitted(message: impl Into<String>) -> Self {
        Self::of(42205, message)
    }

    pub fn reference_exists(subject: &Subject, version: u32) -> Self {
        Self::of(42206, format!("One or more references exist to the schema {subject} version {version}."))
    }

    pub fn invalid_subject(subject: &Subject) -> Self {
        Self::of(42208, format!("The specified subject '{subject}' is not valid."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_the_beginning_of_the_code() {
        let subject = Subject::parse("a");
        for (error, status) in [
            (ApiError::subject_not_found(&subject), 404),
            (ApiError::incompatible(&[]), 409),
            (ApiError::invalid_schema(""), 422),
            (ApiError::unsupported_media_type(), 415),
        ] {
            assert_eq!(error.status, status, "{error:?}");
        }
    }
}
