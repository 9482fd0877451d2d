//! Tokens from a token endpoint: OAuth 2.0's client credentials (RFC 6749, section 4.4), as OpenID Connect providers have it.

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

/// For one question, from the endpoint's name to the end of its answer.
const TIMEOUT: Duration = Duration::from_secs(8);
/// The largest answer taken.
const LARGEST: usize = 256 << 10;
/// A token is asked for anew when so much of its time is over.
const FRESH: f64 = 0.8;

/// Where tokens come from, and the last one.
struct Endpoint {
    client: ClientCredentials,
    at: BrokerAddr,
    uri: Uri,
    /// Held while it is asked: who comes meanwhile takes what the first one got.
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    token: Secret,
    fresh_until: Instant,
    good_until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<f64>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

/// A source that asks the endpoint of these settings.
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
    Ok(TokenSource::provider(Endpoint { client: client.clone(), at, uri, kept: Mutex::default() }))
}

/// What the library says of brokers, which it takes everything for that it connects to, with what can be done about it here.
fn of_an_endpoint(said: &str) -> String {
    said.replace("the broker's", "the endpoint's").replace("REDPANDA_TLS_CA_FILE", "REDPANDA_SASL_OAUTH_CA_FILE")
}

/// Encodes as `application/x-www-form-urlencoded`, which RFC 6749 (appendix B) asks for, and no further: not every endpoint
/// decodes what need not be encoded.
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
        let mut kept = self.kept.lock().await;
        let now = Instant::now();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.fresh_until) {
            return Ok(kept.token.clone());
        }
        let asked = tokio::time::timeout(TIMEOUT, self.ask()).await;
        let asked = asked.unwrap_or_else(|_| Err(anyhow!("no answer within {TIMEOUT:?}")));
        match (asked, kept.as_ref()) {
            (Ok(answer), _) => {
                // One that does not say how long it is good is asked for each time.
                let good = Duration::try_from_secs_f64(answer.expires_in.unwrap_or(0.0)).unwrap_or_default();
                let good = good.min(Duration::from_secs(365 * 24 * 3600));
                let token = Secret::from(answer.access_token);
                let (fresh_until, good_until) = (now + good.mul_f64(FRESH), now + good);
                *kept = Some(Kept { token: token.clone(), fresh_until, good_until });
                Ok(token)
            }
            (Err(e), Some(kept)) if now < kept.good_until => {
                tracing::warn!(error = format!("{e:#}"), "no new token yet: the old one is used while it is good");
                Ok(kept.token.clone())
            }
            (Err(e), _) => Err(e.context(format!("no token from {}", self.client.token_endpoint))),
        }
    }

    async fn ask(&self) -> anyhow::Result<Answer> {
        let mut tls = TlsConfig::default();
        tls.ca_file.clone_from(&self.client.ca_file);
        let secure = (self.uri.scheme_str() == Some("https")).then_some(&tls);
        let stream = ailurus::net::open(&self.at, secure, TIMEOUT)
            .await
            .map_err(|e| anyhow!(of_an_endpoint(&format!("{e:#}"))))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let answer = sender.send_request(self.request()?).await.context("the request failed")?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), LARGEST).collect().await;
            let body = body.map_err(|e| anyhow!("the answer can't be read: {e}"))?.to_bytes();
            self.judge(status, &body)
        };
        // The connection is driven here, and goes with the exchange; how it ends the exchange learns, perhaps after an answer.
        let driven = async {
            _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = exchange => answer,
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
        // Without a user, which a URL may have.
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

    /// What an answer brings; one that brings nothing says no more of itself than is meant to be read.
    fn judge(&self, status: StatusCode, body: &[u8]) -> anyhow::Result<Answer> {
        if status == StatusCode::OK {
            // Its own error might quote it.
            return serde_json::from_slice(body).map_err(|_| anyhow!("the answer is no JSON with an access_token"));
        }
        let client = &self.client.client_id;
        let hint =
            "check REDPANDA_SASL_OAUTH_CLIENT_ID, REDPANDA_SASL_OAUTH_CLIENT_SECRET and REDPANDA_SASL_OAUTH_SCOPE";
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => {
                let more = refusal.error_description.map(|d| format!(" ({d})")).unwrap_or_default();
                let said = format!("{}{more}", refusal.error);
                let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
                if said.contains(self.client.client_secret.expose()) {
                    bail!("the endpoint refused client {client:?} with {status}; {hint}");
                }
                bail!("the endpoint refused client {client:?} with {status}: {said}; {hint}")
            }
            Err(_) => bail!("the endpoint answered {status} to client {client:?}; is it a token endpoint?"),
        }
    }
}
