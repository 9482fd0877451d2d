//! A broker's part of a login.

use super::exchange::{Exchange, Next, Proof};
use crate::config::Secret;

/// What a broker sends in a login, piece by piece: each begins with its length. The first byte chooses the mechanism.
pub(crate) fn exchange(data: &[u8]) {
    let [mechanism, rest @ ..] = data else { return };
    let password = |mechanism| Proof::Password { mechanism, username: "u".into(), password: Secret::from("p") };
    let proof = match mechanism % 4 {
        0 => password("PLAIN"),
        1 => password("SCRAM-SHA-256"),
        2 => password("SCRAM-SHA-512"),
        _ => Proof::Token { token: Secret::from("t"), extensions: vec![] },
    };
    let Ok((mut exchange, _)) = Exchange::begin(proof) else { return };
    let mut rest = rest;
    while let [len, behind @ ..] = rest {
        let (message, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        if !matches!(exchange.answer(message), Ok(Next::Send(_))) {
            return;
        }
        rest = behind;
    }
}
