//! Tokens from a token endpoint, by OAuth 2.0's client credentials grant (RFC 6749, section 4.4).

use std::net::IpAddr;
use std::time::Duration;

use ailurus::{BrokerAddr, ClientCredentials, Secret, TlsConfig, TokenError, TokenFuture, TokenProvider, TokenSource};
use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Timeout of a request, from resolving the endpoint's name to the end of the response.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 << 10;
/// Part of a token's lifetime after which the next one is requested.
const RENEW_AFTER: f64 = 0.8;

/// A token endpoint, and the last token from it.
struct Endpoint {
    client: ClientCredentials,
    at: BrokerAddr,
    uri: Uri,
    /// Locked during a request, so that concurrent callers share one response.
    cached: Mutex<Option<CachedToken>>,
}

struct CachedToken {
    token: Secret,
    renew_at: Instant,
    expires_at: Instant,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    expires_in: Option<f64>,
}

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
    error_description: Option<String>,
}

/// Returns a source of tokens from the endpoint of these settings.
///
/// # Errors
/// If the endpoint is neither an https URL nor an http URL on this machine.
pub fn source(client: &ClientCredentials) -> Result<TokenSource, String> {
    let bad = || {
        format!(
            "REDPANDA_SASL_OAUTH_TOKEN_ENDPOINT is {:?}: allowed is an https URL, or an http one on this machine",
            client.token_endpoint
        )
    };
    let uri: Uri = client.token_endpoint.parse().map_err(|_| bad())?;
    let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let default_port = match uri.scheme_str() {
        Some("https") => 443,
        Some("http") if loopback => 80,
        _ => return Err(bad()),
    };
    let at = BrokerAddr::new(host, uri.port_u16().unwrap_or(default_port));
    Ok(TokenSource::provider(Endpoint { client: client.clone(), at, uri, cached: Mutex::default() }))
}

/// Names the endpoint and its settings in an error of the library, which names a broker's.
fn name_endpoint(error: &str) -> String {
    error.replace("the broker's", "the endpoint's").replace("TlsConfig::ca_file", "ClientCredentials::ca_file")
}

/// Encodes as `application/x-www-form-urlencoded` (RFC 6749, appendix B), and no other characters: not every endpoint
/// decodes them.
fn form_encoded(text: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b' ');
    utf8_percent_encode(text, ENCODED).to_string().replace(' ', "+")
}

impl TokenProvider for Endpoint {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async { self.current().await.map_err(TokenError::from) })
    }
}

impl Endpoint {
    async fn current(&self) -> anyhow::Result<Secret> {
        let mut cached = self.cached.lock().await;
        let now = Instant::now();
        if let Some(cached) = cached.as_ref().filter(|cached| now < cached.renew_at) {
            return Ok(cached.token.clone());
        }
        let response = tokio::time::timeout(TIMEOUT, self.request_token()).await;
        let response = response.unwrap_or_else(|_| Err(anyhow!("no response within {TIMEOUT:?}")));
        match (response, cached.as_ref()) {
            (Ok(response), _) => {
                // A token without a lifetime is requested each time.
                let lifetime = Duration::try_from_secs_f64(response.expires_in.unwrap_or(0.0)).unwrap_or_default();
                let lifetime = lifetime.min(Duration::from_secs(365 * 24 * 3600));
                let token = Secret::from(response.access_token);
                let (renew_at, expires_at) = (now + lifetime.mul_f64(RENEW_AFTER), now + lifetime);
                *cached = Some(CachedToken { token: token.clone(), renew_at, expires_at });
                Ok(token)
            }
            (Err(e), Some(cached)) if now < cached.expires_at => {
                tracing::warn!(error = format!("{e:#}"), "no new token yet; using the last one until it expires");
                Ok(cached.token.clone())
            }
            (Err(e), _) => Err(e.context(format!("no token from {}", self.client.token_endpoint))),
        }
    }

    async fn request_token(&self) -> anyhow::Result<TokenResponse> {
        let mut tls = TlsConfig::default();
        tls.ca_file.clone_from(&self.client.ca_file);
        let secure = (self.uri.scheme_str() == Some("https")).then_some(&tls);
        let stream = ailurus::net::open(&self.at, secure, TIMEOUT)
            .await
            .map_err(|e| anyhow!(name_endpoint(&format!("{e:#}"))))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let response = sender.send_request(self.request()?).await.context("the request failed")?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
            let body = body.map_err(|e| anyhow!("the response can't be read: {e}"))?.to_bytes();
            self.read_response(status, &body)
        };
        // The connection may close while the exchange still reads the end of the response.
        let driven = async {
            _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            response = exchange => response,
            () = driven => bail!("the connection was closed"),
        }
    }

    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let client =
            format!("{}:{}", form_encoded(&self.client.client_id), form_encoded(self.client.client_secret.expose()));
        let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(client)))?;
        basic.set_sensitive(true);
        let mut body = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &self.client.scope {
            body += &format!("&scope={}", form_encoded(scope));
        }
        // The authority of a URL may begin with a user.
        let host = self.uri.authority().and_then(|a| a.as_str().rsplit('@').next()).context("the URL has no host")?;
        Ok(Request::builder()
            .method(Method::POST)
            .uri(self.uri.path_and_query().map_or("/", |p| p.as_str()))
            .header(HOST, host)
            .header(AUTHORIZATION, basic)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body)))?)
    }

    /// Returns the token, or an error that quotes no secret.
    fn read_response(&self, status: StatusCode, body: &[u8]) -> anyhow::Result<TokenResponse> {
        if status == StatusCode::OK {
            // serde's error might quote the token.
            return serde_json::from_slice(body).map_err(|_| anyhow!("the response is no JSON with an access_token"));
        }
        let client = &self.client.client_id;
        let hint =
            "check REDPANDA_SASL_OAUTH_CLIENT_ID, REDPANDA_SASL_OAUTH_CLIENT_SECRET and REDPANDA_SASL_OAUTH_SCOPE";
        match serde_json::from_slice::<ErrorResponse>(body) {
            Ok(refused) => {
                let more = refused.error_description.map(|d| format!(" ({d})")).unwrap_or_default();
                let text = format!("{}{more}", refused.error);
                let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
                if text.contains(self.client.client_secret.expose()) {
                    bail!("the endpoint refused client {client:?} with {status}; {hint}");
                }
                bail!("the endpoint refused client {client:?} with {status}: {text}; {hint}")
            }
            Err(_) => bail!("the endpoint responded {status} to client {client:?}; is it a token endpoint?"),
        }
    }
}
