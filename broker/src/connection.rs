//! A connection: requests are read, served and responded to one at a time, in order, as real
//! brokers do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;

use crate::api;
use crate::api::{sasl_authenticate, sasl_handshake};
use crate::fault::{Fault, RequestInfo};
use crate::held::HeldRequest;
use crate::listener::Stream;
use crate::request::{Context, Response, invalid};
use crate::sasl::Auth;
use crate::schema;
use crate::shared::Shared;

/// Maximum size of a request, as Kafka's `socket.request.max.bytes`.
const MAX_REQUEST_BYTES: usize = 100 << 20;
/// Maximum memory reserved for a request before its bytes arrive.
const MAX_PREALLOCATED_BYTES: usize = 1 << 20;
/// Bytes of API key, version and correlation id.
const MIN_HEADER_BYTES: usize = 8;

/// Counts a connection while it is served.
struct ConnectionCount<'a>(&'a Shared);

impl Drop for ConnectionCount<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection until either side closes it.
pub(crate) async fn serve(shared: Arc<Shared>, node: i32, stream: Stream, peer: SocketAddr) {
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let _count = ConnectionCount(&shared);
    if let Err(error) = accept(&shared, node, stream, peer).await {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            tracing::debug!(node, %peer, %error, "connection closed");
        }
    }
}

async fn accept(shared: &Shared, node: i32, stream: Stream, peer: SocketAddr) -> io::Result<()> {
    match stream {
        Stream::Tcp(stream) => {
            stream.set_nodelay(true)?;
            secure(shared, node, stream, peer).await
        }
        Stream::InMemory(stream) => secure(shared, node, stream, peer).await,
    }
}

async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    node: i32,
    stream: S,
    peer: SocketAddr,
) -> io::Result<()> {
    #[cfg(feature = "tls")]
    if let Some(tls) = shared.tls() {
        let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await?;
        return serve_requests(shared, node, stream, peer).await;
    }
    serve_requests(shared, node, stream, peer).await
}

async fn serve_requests<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    node: i32,
    stream: S,
    peer: SocketAddr,
) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(16 << 10, stream);
    let wake = Arc::new(Notify::new());
    let mut auth = shared.config.sasl.is_some().then(Auth::new);
    loop {
        let frame = read_frame(&mut stream).await?;
        match handle_request(shared, node, &mut auth, frame, peer, &wake).await? {
            Response::Send(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Response::SendAndClose(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Response::None => {}
            Response::Close => return Ok(()),
        }
    }
}

async fn read_frame(stream: &mut BufReader<impl AsyncRead + Unpin>) -> io::Result<Bytes> {
    let length = stream.read_u32().await? as usize;
    if !(MIN_HEADER_BYTES..=MAX_REQUEST_BYTES).contains(&length) {
        return Err(invalid(format!("invalid request length of {length} bytes")));
    }
    let mut frame = BytesMut::with_capacity(length.min(MAX_PREALLOCATED_BYTES));
    let mut rest = stream.take(length as u64);
    while rest.read_buf(&mut frame).await? > 0 {}
    if frame.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame.freeze())
}

pub(crate) async fn handle_request(
    shared: &Shared,
    node: i32,
    auth: &mut Option<Auth>,
    mut frame: Bytes,
    peer: SocketAddr,
    wake: &Arc<Notify>,
) -> io::Result<Response> {
    let mut start = &frame[..MIN_HEADER_BYTES];
    let (api_key, version, correlation_id) = (start.get_i16(), start.get_i16(), start.get_i32());
    let mut context = Context::new(node, (version, correlation_id), peer, wake.clone());
    let offered = shared.config.versions.range(api_key).is_some_and(|(min, max)| (min..=max).contains(&version));
    let api = match ApiKey::try_from(api_key) {
        Ok(api) if offered => api,
        // Kafka's rule: the response in version 0 lists the versions for a newer client.
        Ok(ApiKey::ApiVersions) => {
            let versions = api::api_versions::versions(shared, 0, Some(ResponseError::UnsupportedVersion));
            return context.encode_as(&versions, 0);
        }
        _ => return Err(invalid(format!("api {api_key} version {version} is not supported"))),
    };
    let header = RequestHeader::decode(&mut frame, api.request_header_version(version))
        .map_err(|error| invalid(format!("invalid header: {error}")))?;
    context.client_id = header.client_id.map(|id| id.to_string()).unwrap_or_default();
    shared.isolation.passage(node, &context.client_id).await;
    let info = RequestInfo { node, api_key, version, correlation_id, client_id: &context.client_id, body: &frame };
    let flexible = api.request_header_version(version) >= 2;
    let fields = schema::fields(api).unwrap_or_default();
    schema::check(&frame, fields, version, flexible)
        .map_err(|message| invalid(format!("invalid {api:?} request: {message}")))?;
    let fault = shared.fault_for(&info);
    context.inject(fault);
    match fault {
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Close) => return Ok(Response::Close),
        _ => {}
    }
    if auth.as_ref().is_some_and(|auth| !auth.allows(api, shared.now())) {
        return Err(invalid(format!("{api:?} on a connection that is not authenticated")));
    }
    let held_until = match fault {
        Some(Fault::Hold) => Some(None),
        Some(Fault::HoldFor(delay)) => Some(Some(shared.now() + delay)),
        _ => None,
    };
    if let Some(due) = held_until {
        shared.held().push(HeldRequest { api, context, body: frame, due });
        shared.transactions().changed().notify_one();
        return Ok(Response::Close);
    }
    let response = match api {
        ApiKey::SaslHandshake => {
            let (response, close) = sasl_handshake::handle(shared, auth, &context, &context.decode(frame)?);
            close_after(context.encode(&response)?, close)
        }
        ApiKey::SaslAuthenticate => {
            let (response, close) = sasl_authenticate::handle(shared, auth, &context, &context.decode(frame)?);
            close_after(context.encode(&response)?, close)
        }
        _ => api::dispatch(shared, api, &context, frame).await?,
    };
    match fault {
        Some(Fault::DropResponse) => return Ok(Response::Close),
        Some(Fault::DelayResponse(delay)) => tokio::time::sleep(delay).await,
        _ => {}
    }
    shared.isolation.passage(node, &context.client_id).await;
    Ok(response)
}

/// Makes a response the last of its connection.
fn close_after(response: Response, close: bool) -> Response {
    match response {
        Response::Send(bytes) if close => Response::SendAndClose(bytes),
        response => response,
    }
}
