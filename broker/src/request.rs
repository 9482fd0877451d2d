//! A decoded request and its response, between the connection that carries them and the API that serves them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ResponseHeader;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use tokio::sync::Notify;

use crate::fault::Fault;

/// What an API's handler knows about its request beside the body.
#[derive(Debug)]
pub(crate) struct Context {
    pub node: i32,
    pub version: i16,
    pub client_id: String,
    pub client_host: String,
    correlation_id: i32,
    /// The error that a hook wants to see in place of the answer.
    injected_error: Option<ResponseError>,
    /// What a hook wants to see in a part of the answer.
    fault: Option<Fault>,
    /// Wakes this connection out of a long poll; one for all of its requests, since it serves one at a time.
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

    /// Keeps a hook's fault that replaces the response or changes a part of it.
    pub fn inject(&mut self, fault: Option<Fault>) {
        match fault {
            Some(Fault::Error(code)) => self.injected_error = ResponseError::try_from_code(code),
            Some(Fault::PartitionError { .. } | Fault::ErrorAfterAppend(_) | Fault::RecordErrors { .. }) => {
                self.fault = fault;
            }
            _ => {}
        }
    }

    /// Fails with the error that a hook asked for: handlers call it wherever their answer has room for an error.
    pub fn check_fault(&self) -> Result<(), ResponseError> {
        self.injected_error.map_or(Ok(()), Err)
    }

    /// The same, where an answer has an error for a partition.
    pub fn check_partition_fault(&self, partition: i32) -> Result<(), ResponseError> {
        self.check_fault()?;
        match self.fault {
            Some(Fault::PartitionError { partition: faulty, code }) if faulty == partition => {
                ResponseError::try_from_code(code).map_or(Ok(()), Err)
            }
            _ => Ok(()),
        }
    }

    /// The error with which a batch that was appended is answered all the same.
    pub fn check_fault_after_append(&self) -> Result<(), ResponseError> {
        match self.fault {
            Some(Fault::ErrorAfterAppend(code)) => ResponseError::try_from_code(code).map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }

    /// The distance of the records of a batch that are to be refused, if some are.
    pub fn record_error_interval(&self) -> Option<usize> {
        match self.fault {
            Some(Fault::RecordErrors { every }) => Some(every.max(1) as usize),
            _ => None,
        }
    }

    pub fn decode<R: Decodable>(&self, mut body: Bytes) -> io::Result<R> {
        R::decode(&mut body, self.version).map_err(|error| invalid(format!("unreadable body: {error}")))
    }

    /// The answer as it goes over the wire, with its length.
    pub fn encode<R: Encodable + HeaderVersion>(&self, response: &R) -> io::Result<Response> {
        self.encode_as(response, self.version)
    }

    pub fn encode_as<R: Encodable + HeaderVersion>(&self, response: &R, version: i16) -> io::Result<Response> {
        let unencodable = |error| invalid(format!("unwritable answer: {error}"));
        let size = response.compute_size(version).map_err(unencodable)?;
        let mut out = BytesMut::with_capacity(size + 16);
        out.put_i32(0);
        let header = ResponseHeader::default().with_correlation_id(self.correlation_id);
        header.encode(&mut out, R::header_version(version)).map_err(unencodable)?;
        response.encode(&mut out, version).map_err(unencodable)?;
        let length = i32::try_from(out.len() - 4).map_err(|_| invalid("answer over 2 GiB".into()))?;
        (&mut out[..4]).put_i32(length);
        Ok(Response::Send(out))
    }
}

/// What becomes of a request that was served.
#[derive(Debug)]
pub(crate) enum Response {
    Send(BytesMut),
    /// The last one: the connection is closed behind it.
    SendAndClose(BytesMut),
    /// None was asked for.
    None,
    Close,
}

/// An error that closes the connection.
pub(crate) fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
