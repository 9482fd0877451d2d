//! Users; the key is the user's id.

use serde::{Deserialize, Serialize};

use super::event;

/// `user.registered`: somebody has opened an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "user.registered", rename_all = "camelCase")]
pub struct UserRegistered {
    /// The user.
    pub user_id: String,
    /// Where mail reaches them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// What they are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `user.logged_in`: a session began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "user.logged_in", rename_all = "camelCase")]
pub struct UserLoggedIn {
    /// The user.
    pub user_id: String,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// With what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// `user.profile.updated`: a user has changed their profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "eventType", rename = "user.profile.updated", rename_all = "camelCase")]
pub struct ProfileUpdated {
    /// The user.
    pub user_id: String,
    /// The names of the fields that changed; their values stay with the account.
    #[serde(default)]
    pub updated_fields: Vec<String>,
}

event!(UserRegistered, "user.registered", user_id);
event!(UserLoggedIn, "user.logged_in", user_id);
event!(ProfileUpdated, "user.profile.updated", user_id);
