//! HTTP requests, as any client would send them.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Ends a test that hangs.
const HANG: Duration = Duration::from_secs(300);

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: String,
    pub text: String,
}

impl Response {
    /// Returns the body; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// Returns the error code of the body.
    pub fn code(&self) -> Option<u64> {
        self.json()["error_code"].as_u64()
    }
}

/// Sends requests to a registry, each on its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    url: String,
    headers: Vec<(&'static str, String)>,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let headers = vec![("content-type", "application/vnd.schemaregistry.v1+json".to_owned())];
        Self { url: url.trim_end_matches('/').to_owned(), headers }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Sends a request; an error if no whole response comes.
    pub async fn try_send(&self, method: &str, path: &str, body: &str) -> Result<Response, String> {
        tokio::time::timeout(HANG, self.exchange(method, path, body)).await.expect("a response within 300 s")
    }

    pub async fn send(&self, method: &str, path: &str, body: &str) -> Response {
        self.try_send(method, path, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    async fn exchange(&self, method: &str, path: &str, body: &str) -> Result<Response, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let rest = self.url.strip_prefix("http://").expect("a URL with http://");
        let (host, prefix) = rest.split_once('/').map_or((rest, String::new()), |(h, p)| (h, format!("/{p}")));
        let stream = TcpStream::connect(host).await.map_err(|e| text(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(format!("{prefix}{path}")).header("host", host);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.map_err(|e| text(&e))?.to_bytes();
        connection.abort();
        let content_type = head.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        Ok(Response { status: head.status.as_u16(), content_type, text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// Returns the body that registers a schema.
pub fn schema(text: &str) -> String {
    serde_json::json!({"schema": text}).to_string()
}

/// Returns the body that registers a schema of a type, with references as (name, subject, version).
pub fn schema_of(schema_type: &str, text: &str, references: &[(&str, &str, u32)]) -> String {
    let of = |(name, subject, version): &(&str, &str, u32)| serde_json::json!({"name": name, "subject": subject, "version": version});
    let references: Value = references.iter().map(of).collect();
    serde_json::json!({"schema": text, "schemaType": schema_type, "references": references}).to_string()
}
