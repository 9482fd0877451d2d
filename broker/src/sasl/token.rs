//! `OAUTHBEARER` (RFC 7628).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{AuthError, Principal, Sasl};

/// Separator of the parts of a message.
pub(super) const SEPARATOR: char = '\x01';
/// Error message for a rejected token; the client has to respond before authentication fails.
pub(super) const INVALID_TOKEN_RESPONSE: &str = r#"{"status":"invalid_token"}"#;

/// Returns the principal of a token; `None` if it is rejected.
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

/// Returns the principal of an unsigned JWS that has not expired.
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
