//! `PLAIN` (RFC 4616): `[authorization id] NUL user NUL password`.

use super::{AuthError, Principal, Sasl};

pub(super) fn check(sasl: &Sasl, message: &[u8]) -> Result<Principal, AuthError> {
    let text = std::str::from_utf8(message).map_err(|_| AuthError::new("PLAIN: the message is not UTF-8"))?;
    let parts: Vec<&str> = text.split('\0').collect();
    let [authorization, user, password] = parts.as_slice() else {
        return Err(AuthError::new("PLAIN: the message does not have three parts"));
    };
    if !authorization.is_empty() && authorization != user {
        return Err(AuthError::new("PLAIN: an authorization id other than the user is not supported"));
    }
    let user_entry = sasl.users.get(*user).filter(|u| u.password == *password);
    user_entry.ok_or_else(|| AuthError::new("Authentication failed: Invalid username or password"))?;
    Ok(Principal { name: (*user).to_owned(), expires_at: None })
}
