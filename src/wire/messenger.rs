//! The adapter between kafka-protocol's messages and rskafka's `Messenger`.

use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use kafka_protocol::protocol::Decodable;
use rskafka::messenger::{Messenger, RequestError};
use rskafka::protocol::api_key::ApiKey;
use rskafka::protocol::api_version::{ApiVersion, ApiVersionRange};
use rskafka::protocol::frame::ReadError as FrameError;
use rskafka::protocol::messages::{
    ReadVersionedError, ReadVersionedType, RequestBody, WriteVersionedError, WriteVersionedType,
};
use rskafka::protocol::primitives::Int16;
use rskafka::protocol::traits::{ReadError, WriteError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::api::{Api, Malformed};
use super::frame_reader::FrameTooLarge;
use super::stream::{MessengerStream, StreamControl, frame_too_large};
use super::validate;
use crate::error::{Error, ErrorKind, Result};

/// A bidirectional byte stream of any kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

pub(super) type BoxedStream = Pin<Box<dyn Duplex>>;
/// The messenger of a connection, over TCP or TLS.
pub(super) type BrokerMessenger = Messenger<MessengerStream<BoxedStream>>;

/// A request to encode into the messenger's buffer.
pub(super) struct RequestMessage<T> {
    pub(super) message: T,
    pub(super) control: Arc<StreamControl>,
}

/// A response, decoded from the messenger's buffer.
pub(super) struct ResponseMessage<T: Api>(pub(super) T::Response);

const fn version(v: i16) -> ApiVersion {
    ApiVersion(Int16(v))
}

impl<T: Api> RequestBody for RequestMessage<T> {
    type ResponseBody = ResponseMessage<T>;
    const API_KEY: ApiKey = T::KEY;
    const API_VERSION_RANGE: ApiVersionRange = ApiVersionRange::new(version(T::VERSIONS.0), version(T::VERSIONS.1));
    const FIRST_TAGGED_FIELD_IN_REQUEST_VERSION: ApiVersion = version(T::FLEXIBLE);
    /// The response to ApiVersions always has the oldest header: its reader does not know yet which
    /// headers it supports.
    const FIRST_TAGGED_FIELD_IN_RESPONSE_VERSION: ApiVersion =
        version(if matches!(T::KEY, ApiKey::ApiVersions) { i16::MAX } else { T::FLEXIBLE });
}

impl<T: Api> WriteVersionedType<Vec<u8>> for RequestMessage<T> {
    fn write_versioned(&self, writer: &mut Vec<u8>, version: ApiVersion) -> Result<(), WriteVersionedError> {
        let inserts = self.message.encode_into(writer, version.0.0).map_err(WriteError::Malformed)?;
        self.control.register_frame(writer, inserts);
        Ok(())
    }
}

impl<T: Api> ReadVersionedType<Cursor<Vec<u8>>> for ResponseMessage<T> {
    fn read_versioned(reader: &mut Cursor<Vec<u8>>, version: ApiVersion) -> Result<Self, ReadVersionedError> {
        let malformed = |e: Malformed| ReadError::Malformed(e);
        // The response takes the messenger's whole buffer, so that fetched records are not copied.
        // With an empty buffer at position 0 the messenger finds no unread bytes; `validate::check`
        // looks for them instead.
        let position = reader.position() as usize;
        let mut frame = Bytes::from(std::mem::take(reader.get_mut()));
        reader.set_position(0);
        frame.advance(position.min(frame.len()));
        let version = version.0.0;
        validate::check(&frame, T::RESPONSE, version, version >= T::FLEXIBLE).map_err(|e| malformed(e.into()))?;
        let response = T::Response::decode(&mut frame, version).map_err(|e| malformed(e.into()))?;
        Ok(Self(response))
    }
}

/// Sends the login's requests over a connection, one at a time and while no other request is in
/// flight.
pub(super) struct HandshakeClient {
    pub(super) messenger: Arc<BrokerMessenger>,
    pub(super) control: Arc<StreamControl>,
    pub(super) peer: Arc<str>,
}

impl HandshakeClient {
    /// Returns the broker's name in errors.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Sends a request and waits for its response. The caller keeps a deadline, and kills the
    /// connection when it expires.
    pub(super) async fn request<A: Api>(&self, request: A) -> Result<A::Response> {
        let message = RequestMessage { message: request, control: Arc::clone(&self.control) };
        let response = self.messenger.request(message).await;
        response.map(|ResponseMessage(response)| response).map_err(|e| to_error::<A>(e, &self.peer, &self.control))
    }
}

pub(super) fn to_error<A: Api>(e: RequestError, peer: &str, control: &StreamControl) -> Error {
    let failed = |kind, why: &str| Error::new(kind, format!("{} to {peer} failed: {why}", A::NAME));
    match e {
        RequestError::NoVersionMatch { .. } => {
            let (min, max) = A::VERSIONS;
            failed(ErrorKind::Unsupported, &format!("the broker does not serve it in any version from {min} to {max}"))
        }
        RequestError::WriteError(e) => failed(ErrorKind::Unsupported, &format!("it can't be encoded: {e}")),
        RequestError::ReadVersionedError(e) => {
            failed(ErrorKind::Corrupt, &format!("the response can't be decoded: {e}"))
        }
        RequestError::ReadError(e) => failed(ErrorKind::Corrupt, &format!("the response can't be decoded: {e}")),
        e @ RequestError::TooMuchData { .. } => failed(ErrorKind::Corrupt, &e.to_string()),
        e => {
            // The messenger fails all requests in flight alike. Report it as the response of one of
            // them only: the first to find it kills the connection, the others are disconnected.
            if let Some(too_large) = poisoned_by_frame(&e).filter(|_| !control.is_killed()) {
                return failed(ErrorKind::Corrupt, &too_large.to_string());
            }
            let why = control.reason().map_or_else(|| e.to_string(), str::to_owned);
            failed(ErrorKind::Disconnected, &why)
        }
    }
}

fn poisoned_by_frame(e: &RequestError) -> Option<&FrameTooLarge> {
    match e {
        RequestError::ReadFramedMessageError(FrameError::IO(e)) => frame_too_large(e),
        RequestError::Poisoned(e) => poisoned_by_frame(e),
        _ => None,
    }
}
