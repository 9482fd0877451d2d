//! One request to one registry, over connections that are kept open.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ailurus::{Secret, TlsConfig, TokenSource};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::url::BaseUrl;

/// Maximum size of a response, in bytes.
pub(super) const MAX_RESPONSE_BYTES: usize = 16 << 20;
/// Maximum number of idle connections to a registry.
const MAX_IDLE: usize = 4;
/// Time after which an idle connection is not used any more: a proxy or a firewall may have dropped it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json; q=0.9";

/// Credentials of requests.
#[derive(Debug, Clone, Default)]
pub(super) enum Auth {
    #[default]
    None,
    Basic {
        username: String,
        password: Secret,
    },
    Bearer(TokenSource),
}

/// A registry, with its idle connections.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: BaseUrl,
    idle: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes the socket; ends with the connection.
    _driver: AbortOnDropHandle<()>,
    used_at: Instant,
}

/// A request, whichever registry it goes to.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path of the API and query, beginning with a slash.
    pub(super) path: String,
    pub(super) body: Bytes,
}

impl Call {
    /// Returns whether the outcome is the same when the request is received twice. A version that is
    /// deleted twice is not found.
    pub(super) fn is_idempotent(&self) -> bool {
        self.method != Method::DELETE
    }
}

/// Status and body of a response.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Reason why there is no response.
#[derive(Debug)]
pub(super) enum Failure {
    /// The registry did not get the request: no connection, or it closed before.
    NotSent(String),
    /// The registry may have got the request.
    NoResponse(String),
    /// There are no credentials.
    NoToken(String),
    /// The request can't be made, whichever registry it goes to.
    Invalid(String),
    /// The response is larger than this client reads.
    TooLarge,
}

impl Endpoint {
    pub(super) fn new(url: BaseUrl) -> Self {
        Self { url, idle: Mutex::default() }
    }

    /// Sends a request and reads the response.
    ///
    /// # Cancellation
    /// Dropping the future closes the connection.
    pub(super) async fn send(
        &self,
        call: &Call,
        auth: &Auth,
        tls: &TlsConfig,
        timeout: Duration,
    ) -> Result<Response, Failure> {
        let authorization = authorization(auth).await?;
        // An idle connection may be closed at the moment it is used: then the request is not repeated here if it
        // may have been received and must not be received twice.
        if call.is_idempotent() {
            while let Some(connection) = self.take_idle() {
                match self.exchange(connection, self.request(call, authorization.as_ref())?).await {
                    Err(Failure::NotSent(_) | Failure::NoResponse(_)) => {}
                    done => return done,
                }
            }
        }
        let connection = self.connect(tls, timeout).await?;
        self.exchange(connection, self.request(call, authorization.as_ref())?).await
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.sender.is_closed() && connection.used_at.elapsed() < IDLE_TIMEOUT);
        idle.pop()
    }

    async fn connect(&self, tls: &TlsConfig, timeout: Duration) -> Result<Connection, Failure> {
        let tls = self.url.is_tls.then_some(tls);
        let stream = match ailurus::net::open(&self.url.addr, tls, timeout).await {
            Ok(stream) => stream,
            Err(e) if e.kind() == ailurus::ErrorKind::Config => return Err(Failure::Invalid(format!("{e:#}"))),
            Err(e) => return Err(Failure::NotSent(name_registry(&format!("{e:#}")))),
        };
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| Failure::NotSent(format!("{e}")))?;
        let driver = tokio::spawn(async {
            // What fails here fails the request, too.
            _ = driver.await;
        });
        Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver), used_at: Instant::now() })
    }

    async fn exchange(&self, mut connection: Connection, request: Request<Full<Bytes>>) -> Result<Response, Failure> {
        let failed = |e: &hyper::Error| match e.is_canceled() {
            true => Failure::NotSent(explain(e)),
            false => Failure::NoResponse(explain(e)),
        };
        connection.sender.ready().await.map_err(|e| Failure::NotSent(explain(&e)))?;
        let response = connection.sender.send_request(request).await.map_err(|e| failed(&e))?;
        let status = response.status().as_u16();
        let body = match Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) if e.is::<http_body_util::LengthLimitError>() => return Err(Failure::TooLarge),
            Err(e) => return Err(Failure::NoResponse(format!("the response ended early: {e}"))),
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !connection.sender.is_closed() {
            connection.used_at = Instant::now();
            idle.push(connection);
        }
        Ok(Response { status, body })
    }

    fn request(&self, call: &Call, authorization: Option<&HeaderValue>) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.url.path, call.path))
            .header(HOST, &self.url.host)
            .header(ACCEPT, ACCEPTED);
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, MEDIA_TYPE);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::new(call.body.clone())).map_err(|e| Failure::Invalid(e.to_string()))
    }
}

/// Returns the text of an error of hyper with its cause.
fn explain(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Names the registry in an error of the library, which names a broker's.
fn name_registry(error: &str) -> String {
    error
        .replace("is a broker running there?", "is a registry running there?")
        .replace("the broker's", "the registry's")
        .replace("the broker ", "the registry ")
}

async fn authorization(auth: &Auth) -> Result<Option<HeaderValue>, Failure> {
    let text = match auth {
        Auth::None => return Ok(None),
        Auth::Basic { username, password } => {
            format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose())))
        }
        Auth::Bearer(source) => format!("Bearer {}", token(source).await?.expose()),
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Failure::NoToken("it has characters that a header can't have".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

async fn token(source: &TokenSource) -> Result<Secret, Failure> {
    match source {
        TokenSource::Provider(provider) => provider.token().await.map_err(|e| Failure::NoToken(e.to_string())),
        TokenSource::File(path) => {
            let (path, shown) = (path.clone(), path.display().to_string());
            let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
            match read.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
                Ok(text) => Ok(Secret::from(text.trim())),
                Err(e) => Err(Failure::NoToken(format!("{shown} can't be read: {e}"))),
            }
        }
        _ => Err(Failure::NoToken("this kind of token source is not supported".into())),
    }
}
