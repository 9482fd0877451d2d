//! SaslHandshake: a client asks for a mechanism.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::{code, text};
use crate::request::Context;
use crate::sasl::Auth;
use crate::shared::Shared;

/// Whoever asks for a mechanism that is not offered, or in the wrong place, is told so before the connection is closed.
pub(crate) fn handle(
    shared: &Shared,
    auth: &mut Option<Auth>,
    cx: &Context,
    request: &SaslHandshakeRequest,
) -> (SaslHandshakeResponse, bool) {
    let answer = SaslHandshakeResponse::default();
    let (Some(sasl), Some(auth)) = (&shared.config.sasl, auth) else {
        // Of a listener without SASL.
        let refused = cx.gate().err().unwrap_or(ResponseError::IllegalSaslState);
        return (answer.with_error_code(refused.code()), false);
    };
    let begun = cx.gate().and_then(|()| auth.begin(sasl, &request.mechanism));
    let names = sasl.names().into_iter().map(text).collect();
    (answer.with_error_code(code(&begun)).with_mechanisms(names), begun.is_err())
}
