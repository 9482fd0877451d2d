//! HTTP: listener, connections, headers, faults.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::api::{self, Reply};
use super::config::RegistryConfig;
use super::error::ApiError;
use super::fault::{Faults, RegistryFault, RegistryRequest};
use super::store::Store;
use crate::listener::{Listener, ReservedPort};

/// Maximum size of a request's body.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Maximum time between requests of a connection, and for a request to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept, as for lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Requests that are remembered.
const MAX_REQUESTS: usize = 10_000;

const V1: &str = "application/vnd.schemaregistry.v1+json";
const JSON: &str = "application/json";
/// Media types of request bodies.
const ACCEPTED: [&str; 4] = [V1, "application/vnd.schemaregistry+json", JSON, "application/octet-stream"];

/// State that connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub store: Mutex<Store>,
    pub faults: Mutex<Faults>,
    /// The newest requests, oldest first.
    pub requests: Mutex<VecDeque<RegistryRequest>>,
    pub request_count: AtomicU64,
    authorizations: Vec<String>,
}

impl Shared {
    pub fn new(config: RegistryConfig) -> Self {
        Self {
            store: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            request_count: AtomicU64::new(0),
            authorizations: config.authorizations,
        }
    }

    fn note(&self, request: &RegistryRequest) {
        self.request_count.fetch_add(1, Ordering::Relaxed);
        let mut requests = locked(&self.requests);
        if requests.len() == MAX_REQUESTS {
            requests.pop_front();
        }
        requests.push_back(request.clone());
    }
}

/// Returns the value of a lock, even if a hook has panicked.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A registry that listens. Dropping it aborts the listener and its connections.
#[derive(Debug)]
pub(super) struct Server {
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Option<ReservedPort>>>,
}

impl Server {
    pub fn start(shared: Arc<Shared>, listener: TcpListener) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop: Some(stop), task: Some(tokio::spawn(run(shared, listener, stopped))) }
    }

    /// Closes listener and connections, and waits for them. Returns the port, reserved for a restart.
    pub async fn stop(mut self) -> Option<ReservedPort> {
        drop(self.stop.take());
        self.task.take()?.await.ok().flatten()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run(shared: Arc<Shared>, listener: TcpListener, mut stopped: oneshot::Receiver<()>) -> Option<ReservedPort> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(shared.clone(), stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "the schema registry failed to accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }
    let port = Listener::Tcp(listener).close();
    connections.shutdown().await;
    port
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    _ = stream.set_nodelay(true);
    let service = service_fn(|request| respond(&shared, request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the schema registry was closed");
    }
}

/// Responds to a request; an error closes the connection.
async fn respond(shared: &Shared, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let noted = RegistryRequest::new(head.method.as_str(), path);
    shared.note(&noted);
    let closed = || io::Error::other("closed by an injected fault");
    let fault = locked(&shared.faults).take(&noted);
    match fault {
        None | Some(RegistryFault::DropResponse) => {}
        Some(RegistryFault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(RegistryFault::Hang) => std::future::pending().await,
        Some(RegistryFault::Close) => return Err(closed()),
        Some(RegistryFault::Error { status, error_code, message }) => {
            return Ok(response(status, JSON, error_body(error_code, &message)));
        }
        Some(RegistryFault::Response { status, content_type, body }) => {
            return Ok(response(status, &content_type, body));
        }
    }
    let (status, content_type, body) = match result(shared, &head.method, &head.uri, &head.headers, body).await {
        Ok((content_type, Reply::Json(value))) => (200, content_type, value.to_string()),
        Ok((content_type, Reply::Text(text))) => (200, content_type, text),
        Err(error) => (error.status, JSON, error_body(error.code, &error.message)),
    };
    if fault == Some(RegistryFault::DropResponse) {
        return Err(closed());
    }
    let mut response = response(status, content_type, body);
    if status == 401 {
        response.headers_mut().insert(HeaderName::from_static("www-authenticate"), HeaderValue::from_static("Basic"));
    }
    Ok(response)
}

async fn result(
    shared: &Shared,
    method: &Method,
    uri: &hyper::Uri,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(&'static str, Reply), ApiError> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let is_authorized = |accepted: &String| authorization == Some(accepted.as_str());
    if !shared.authorizations.is_empty() && !shared.authorizations.iter().any(is_authorized) {
        return Err(ApiError::unauthorized());
    }
    let content_type = negotiated(headers)?;
    let body = tokio::time::timeout(REQUEST_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let body = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(ApiError::too_large(MAX_BODY_BYTES)),
        Ok(Err(error)) => return Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
        Err(_) => return Err(ApiError::bad_request("the body did not arrive")),
    };
    let request =
        api::Request { method: method.as_str(), path: uri.path(), query: uri.query().unwrap_or(""), body: &body };
    let reply = api::handle(&mut locked(&shared.store), request)?;
    Ok((content_type, reply))
}

/// Returns the media type of the response.
fn negotiated(headers: &HeaderMap) -> Result<&'static str, ApiError> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or("").to_ascii_lowercase();
    let media_type = |text: &str| text.split(';').next().unwrap_or("").trim().to_owned();
    if let Some(sent) = headers.get(CONTENT_TYPE) {
        if !ACCEPTED.contains(&media_type(&text(sent)).as_str()) {
            return Err(ApiError::unsupported_media_type());
        }
    }
    let wanted: Vec<_> =
        headers.get_all(ACCEPT).iter().flat_map(|v| text(v).split(',').map(media_type).collect::<Vec<_>>()).collect();
    let is_wanted = |name: &str| wanted.iter().any(|w| w == name || w == "*/*" || w == "application/*");
    if wanted.is_empty() || is_wanted(V1) {
        Ok(V1)
    } else {
        let others = [ACCEPTED[1], JSON];
        others.into_iter().find(|name| is_wanted(name)).ok_or_else(ApiError::not_acceptable)
    }
}

fn error_body(code: u32, message: &str) -> String {
    json!({"error_code": code, "message": message}).to_string()
}

fn response(status: u16, content_type: &str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let status = StatusCode::from_u16(status).ok().filter(|s| (200..600).contains(&s.as_u16()));
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}
