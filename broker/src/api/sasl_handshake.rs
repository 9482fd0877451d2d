//! SaslHandshake: selects a mechanism.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::{code, text};
use crate::request::Context;
use crate::sasl::Auth;
use crate::shared::Shared;

/// Returns the response, and whether the connection is closed after it.
pub(crate) fn handle(
    shared: &Shared,
    auth: &mut Option<Auth>,
    cx: &Context,
    request: &SaslHandshakeRequest,
) -> (SaslHandshakeResponse, bool) {
    let response = SaslHandshakeResponse::default();
    let (Some(sasl), Some(auth)) = (&shared.config.sasl, auth) else {
        // Listener without SASL.
        let error = cx.check_fault().err().unwrap_or(ResponseError::IllegalSaslState);
        return (response.with_error_code(error.code()), false);
    };
    let result = cx.check_fault().and_then(|()| auth.handshake(sasl, &request.mechanism));
    let mechanism_names = sasl.mechanism_names().into_iter().map(text).collect();
    (response.with_error_code(code(&result)).with_mechanisms(mechanism_names), result.is_err())
}
