//! `OAUTHBEARER` (RFC 7628): a token between two control characters.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{AuthError, Principal, Sasl};

/// What stands between the parts of a message, and is the whole of one that gives up.
pub(super) const SEPARATOR: char = '\x01';
/// What is said of a token that is not taken; the client has to answer before it is refused.
pub(super) const INVALID_TOKEN_RESPONSE: &str = r#"{"status":"invalid_token"}"#;

/// Whose token a message brings; `None` if it is not taken.
pub(super) fn check(sasl: &Sasl, message: &[u8]) -> Result<Option<Principal>, AuthError> {
    let malformed = || AuthError::new("OAUTHBEARER: the client's message can't be read");
    let text = std::str::from_utf8(message).map_err(|_| malformed())?;
    let rest = text.strip_prefix("n,,").and_then(|r| r.strip_prefix(SEPARATOR)).ok_or_else(malformed)?;
    let pairs = rest.strip_suffix("\x01\x01").ok_or_else(malformed)?;
    let token = pairs.split(SEPARATOR).find_map(|p| p.strip_prefix("auth=Bearer ")).ok_or_else(malformed)?;
    if let Some(principal) = sasl.tokens.get(token) {
        return Ok(Some(Principal { name: principal.clone(), expires_at: None }));
    }
    Ok(if sasl.unsecured_tokens { unsecured(token) } else { None })
}

/// Of a JWS that nobody has signed, and which has not expired.
fn unsecured(token: &str) -> Option<Principal> {
    let json = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let mut parts = token.split('.');
    let (header, claims, signature) = (json(parts.next()?)?, json(parts.next()?)?, parts.next()?);
    if parts.next().is_some() || !signature.is_empty() || header.get("alg")? != "none" {
        return None;
    }
    let name = claims.get("sub")?.as_str()?.to_owned();
    let expires_at = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(claims.get("exp")?.as_f64()?).ok()?)?;
    (expires_at > SystemTime::now()).then_some(Principal { name, expires_at: Some(expires_at) })
}
