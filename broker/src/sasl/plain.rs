//! `PLAIN` (RFC 4616): `[authorization id] NUL user NUL password`.

use super::{Refused, Sasl, Who};

pub(super) fn check(sasl: &Sasl, message: &[u8]) -> Result<Who, Refused> {
    let text = std::str::from_utf8(message).map_err(|_| Refused::new("PLAIN: the message is not UTF-8"))?;
    let parts: Vec<&str> = text.split('\0').collect();
    let [authorization, user, password] = parts.as_slice() else {
        return Err(Refused::new("PLAIN: the message has not three parts"));
    };
    if !authorization.is_empty() && authorization != user {
        return Err(Refused::new("PLAIN: to act for another user is not allowed"));
    }
    let known = sasl.users.get(*user).filter(|u| u.password == *password);
    known.ok_or_else(|| Refused::new("Authentication failed: Invalid username or password"))?;
    Ok(Who { principal: (*user).to_owned(), until: None })
}
