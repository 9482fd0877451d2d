//! SaslAuthenticate: one message of an exchange, and the broker's next.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};

use super::text;
use crate::request::Context;
use crate::sasl::{Auth, AuthOutcome};
use crate::shared::Shared;

/// Returns the response, and whether the connection is closed after it.
pub(crate) fn handle(
    shared: &Shared,
    auth: &mut Option<Auth>,
    cx: &Context,
    request: &SaslAuthenticateRequest,
) -> (SaslAuthenticateResponse, bool) {
    let outcome = match (cx.check_fault(), &shared.config.sasl, auth) {
        (Err(injected), ..) => AuthOutcome::Failed(injected, "injected by a hook".into()),
        (_, Some(sasl), Some(auth)) => auth.authenticate(sasl, &request.auth_bytes, shared.now()),
        _ => AuthOutcome::Failed(ResponseError::IllegalSaslState, "this listener has no SASL".into()),
    };
    let response = |bytes: Bytes| SaslAuthenticateResponse::default().with_auth_bytes(bytes);
    match outcome {
        AuthOutcome::Continue(bytes) => (response(bytes), false),
        AuthOutcome::Done { last, lifetime } => {
            let ms = lifetime.map_or(0, |l| i64::try_from(l.as_millis()).unwrap_or(i64::MAX).max(1));
            // Versions before 1 have no session lifetime.
            (response(last).with_session_lifetime_ms(if cx.version >= 1 { ms } else { 0 }), false)
        }
        AuthOutcome::Failed(error, message) => {
            let response = response(Bytes::new()).with_error_code(error.code()).with_error_message(Some(text(message)));
            (response, true)
        }
    }
}
