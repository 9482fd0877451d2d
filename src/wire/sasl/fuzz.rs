//! The fuzzing target of logins.

use super::exchange::{Credential, Exchange, Step};
use crate::config::Secret;

/// Feeds a login with a broker's messages, each behind its length. The first byte chooses the
/// mechanism.
pub(crate) fn exchange(data: &[u8]) {
    let [mechanism, rest @ ..] = data else { return };
    let password = |mechanism| Credential::Password { mechanism, username: "u".into(), password: Secret::from("p") };
    let credential = match mechanism % 4 {
        0 => password("PLAIN"),
        1 => password("SCRAM-SHA-256"),
        2 => password("SCRAM-SHA-512"),
        _ => Credential::Token { token: Secret::from("t"), extensions: vec![] },
    };
    let Ok((mut exchange, _)) = Exchange::start(credential) else { return };
    let mut rest = rest;
    while let [len, after @ ..] = rest {
        let (message, after) = after.split_at(usize::from(*len).min(after.len()));
        if !matches!(exchange.handle_message(message), Ok(Step::Send(_))) {
            return;
        }
        rest = after;
    }
}
