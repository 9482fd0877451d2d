//! Users; the key is the user's id.

use serde::{Deserialize, Serialize};

use super::event;

/// `user.registered`: an account was created.
///
/// ```
/// use ailurus_shop::events::UserRegistered;
///
/// let json = r#"{"userId":"u-1","email":"u@example.com"}"#;
/// let event: UserRegistered = serde_json::from_str(json)?;
/// assert_eq!(event.email.as_deref(), Some("u@example.com"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "user.registered", rename_all = "camelCase")]
pub struct UserRegistered {
    /// The user.
    pub user_id: String,
    /// Address for mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Name of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `user.logged_in`: a session was started.
///
/// ```
/// use ailurus_shop::events::UserLoggedIn;
///
/// let json = r#"{"userId":"u-1","ipAddress":"::1"}"#;
/// let event: UserLoggedIn = serde_json::from_str(json)?;
/// assert_eq!(event.ip_address.as_deref(), Some("::1"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "user.logged_in", rename_all = "camelCase")]
pub struct UserLoggedIn {
    /// The user.
    pub user_id: String,
    /// IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// User agent of the browser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// `user.profile.updated`: a profile was changed.
///
/// ```
/// use ailurus_shop::events::ProfileUpdated;
///
/// let json = r#"{"userId":"u-1","updatedFields":["email"]}"#;
/// let event: ProfileUpdated = serde_json::from_str(json)?;
/// assert_eq!(event.updated_fields, ["email"]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "user.profile.updated", rename_all = "camelCase")]
pub struct ProfileUpdated {
    /// The user.
    pub user_id: String,
    /// Names of the fields that changed; the values are not part of the event.
    #[serde(default)]
    pub updated_fields: Vec<String>,
}

event!(UserRegistered, "user.registered", user_id);
event!(UserLoggedIn, "user.logged_in", user_id);
event!(ProfileUpdated, "user.profile.updated", user_id);
