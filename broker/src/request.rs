//! Request context and response, shared by the connections and the APIs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use tokio::sync::Notify;

use crate::fault::Fault;

/// Context of a request for its handler.
#[derive(Debug)]
pub(crate) struct Context {
    pub node: i32,
    pub version: i16,
    pub client_id: String,
    pub client_host: String,
    correlation_id: i32,
    /// Error that a hook injects in place of the response.
    injected_error: Option<ResponseError>,
    /// Fault that a hook injects into a part of the response.
    fault: Option<Fault>,
    /// Notified when a long poll has data; shared by all requests of the connection, which serves
    /// one at a time.
    pub wake: Arc<Notify>,
}

impl Context {
    pub fn new(node: i32, (version, correlation_id): (i16, i32), peer: SocketAddr, wake: Arc<Notify>) -> Self {
        Self {
            node,
            version,
            client_id: String::new(),
            client_host: format!("/{}", peer.ip()),
            correlation_id,
            injected_error: None,
            fault: None,
            wake,
        }
    }

    /// Applies a hook's fault that replaces or changes the response.
    pub fn inject(&mut self, fault: Option<Fault>) {
        match fault {
            Some(Fault::Error(code)) => self.injected_error = ResponseError::try_from_code(code),
            Some(Fault::PartitionError { .. } | Fault::ErrorAfterAppend(_) | Fault::RecordErrors { .. }) => {
                self.fault = fault;
            }
            _ => {}
        }
    }

    /// Fails with an injected error. Handlers call it wherever their response has an error code.
    pub fn check_fault(&self) -> Result<(), ResponseError> {
        self.injected_error.map_or(Ok(()), Err)
    }

    /// Fails with an error injected for the request or this partition.
    pub fn check_partition_fault(&self, partition: i32) -> Result<(), ResponseError> {
        self.check_fault()?;
        match self.fault {
            Some(Fault::PartitionError { partition: faulty, code }) if faulty == partition => {
                ResponseError::try_from_code(code).map_or(Ok(()), Err)
            }
            _ => Ok(()),
        }
    }

    /// Fails with an error injected for a batch after it was appended.
    pub fn check_fault_after_append(&self) -> Result<(), ResponseError> {
        match self.fault {
            Some(Fault::ErrorAfterAppend(code)) => ResponseError::try_from_code(code).map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }

    /// Returns the distance between records to reject, if a hook injects record errors.
    pub fn record_error_interval(&self) -> Option<usize> {
        match self.fault {
            Some(Fault::RecordErrors { every }) => Some(every.max(1) as usize),
            _ => None,
        }
    }

    pub fn decode<R: Decodable>(&self, mut body: Bytes) -> io::Result<R> {
        R::decode(&mut body, self.version).map_err(|error| invalid(format!("invalid body: {error}")))
    }

    /// Encodes a response, with its length.
    pub fn encode<R: Encodable + HeaderVersion>(&self, response: &R) -> io::Result<Response> {
        self.encode_as(response, self.version)
    }

    pub fn encode_as<R: Encodable + HeaderVersion>(&self, response: &R, version: i16) -> io::Result<Response> {
        let unencodable = |error| invalid(format!("cannot encode the response: {error}"));
        let size = response.compute_size(version).map_err(unencodable)?;
        let mut out = BytesMut::with_capacity(size + 16);
        out.put_i32(0);
        let header = ResponseHeader::default().with_correlation_id(self.correlation_id);
        header.encode(&mut out, R::header_version(version)).map_err(unencodable)?;
        response.encode(&mut out, version).map_err(unencodable)?;
        let length = i32::try_from(out.len() - 4).map_err(|_| invalid("the response is over 2 GiB".into()))?;
        (&mut out[..4]).put_i32(length);
        Ok(Response::Send(out))
    }
}

/// Outcome of a request on its connection.
#[derive(Debug)]
pub(crate) enum Response {
    Send(BytesMut),
    /// Closes the connection after the response.
    SendAndClose(BytesMut),
    /// The client expects no response.
    None,
    Close,
}

/// Returns an error that closes the connection.
pub(crate) fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
