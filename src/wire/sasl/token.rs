//! OAuth tokens: their sources, and their expiry.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroize;

use crate::config::{Secret, TokenSource};
use crate::error::{Error, ErrorKind, Result};
use crate::timestamp::Timestamp;

/// Maximum size of a token file; brokers accept less.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// Fetches a token from its source.
///
/// # Errors
/// [`ErrorKind::Authentication`] with the reason if there is none, without the invalid content.
pub(super) async fn fetch(source: &TokenSource) -> Result<Secret> {
    // Marked, because a later attempt may succeed: the source may be back, or the file replaced.
    let failed = |what: String| Error::new(ErrorKind::Authentication, what).into_token_source_outage();
    let (token, from) = match source {
        TokenSource::Provider(provider) => {
            let token = provider.token().await;
            let none = |e| Error::with_source(ErrorKind::Authentication, "the token provider has no token", e);
            (token.map_err(|e| none(e).into_token_source_outage())?, "the token provider".to_owned())
        }
        TokenSource::File(path) => {
            let named = format!("the token file {}", path.display());
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let read = read.unwrap_or_else(|e| Err(e.into()));
            let hint = "see TokenSource::File";
            (read.map_err(|e| failed(format!("{named} can't be read: {e}; {hint}")))?, named)
        }
    };
    // Other characters could end the token's field and start another one.
    if token.is_empty() || !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        let what = if token.is_empty() { "it is empty" } else { "it has characters that a token can't have" };
        return Err(failed(format!("{from} holds no token: {what}")));
    }
    Ok(token)
}

fn read(path: &Path) -> std::io::Result<Secret> {
    let mut text = String::new();
    let size = File::open(path)?.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text);
    let token = Secret::from(text.trim());
    text.zeroize();
    match size? as u64 {
        size if size > MAX_TOKEN_BYTES => {
            Err(std::io::Error::other(format!("it is larger than {MAX_TOKEN_BYTES} bytes")))
        }
        _ => Ok(token),
    }
}

/// Returns the expiry of a token, if it is a JWT that has one.
pub(super) fn expiry(token: &Secret) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.expose().split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    // JWTs have seconds.
    Some(Timestamp::from_millis((claims.exp as i64).saturating_mul(1000)))
}
