//! URLs of registries.

use std::net::IpAddr;

use ailurus::BrokerAddr;
use hyper::Uri;
use hyper::header::HeaderValue;

use crate::error::{SchemaError, SchemaErrorKind};

/// Base URL of a registry.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl {
    /// Text for errors, without a slash at the end.
    pub(crate) text: String,
    pub(crate) addr: BrokerAddr,
    pub(crate) is_tls: bool,
    /// Value of the header `Host`.
    pub(crate) host: HeaderValue,
    /// Path before the paths of the API, without a slash at the end.
    pub(crate) path: String,
}

impl BaseUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, SchemaError> {
        let text = text.trim().trim_end_matches('/');
        let invalid = |why: &str| {
            let what = format!("{text:?} is no URL of a schema registry: {why}");
            SchemaError::new(SchemaErrorKind::Config, what)
        };
        let example = "write http://host:port or https://host:port, for example http://localhost:8081";
        let uri: Uri = text.parse().map_err(|_| invalid(example))?;
        let (is_tls, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(invalid(example)),
        };
        let authority = uri.authority().ok_or_else(|| invalid(example))?;
        if authority.as_str().contains('@') {
            // Not quoted: it may have a password.
            let what = "the URL of the schema registry has a user in it: set it by SchemaRegistryBuilder::basic_auth";
            return Err(SchemaError::new(SchemaErrorKind::Config, what));
        }
        if uri.query().is_some() {
            return Err(invalid("it has a query"));
        }
        let host = authority.host().trim_matches(['[', ']']);
        let addr = BrokerAddr::new(host, authority.port_u16().unwrap_or(default_port));
        let header = HeaderValue::try_from(authority.as_str()).map_err(|_| invalid(example))?;
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { text: text.to_owned(), addr, is_tls, host: header, path })
    }

    /// Returns whether others can't read what is sent.
    pub(crate) fn is_private(&self) -> bool {
        let host = self.addr.host();
        self.is_tls || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_scheme_a_host_and_perhaps_a_path() {
        let url = BaseUrl::parse("https://registry.example.com/apis/ccompat/v7/").unwrap();
        assert_eq!((url.addr.port(), url.path.as_str(), url.is_tls), (443, "/apis/ccompat/v7", true));
        let url = BaseUrl::parse("http://[::1]:8081").unwrap();
        assert_eq!((url.addr.host(), url.addr.port(), url.path.as_str()), ("::1", 8081, ""));
        assert!(url.is_private() && !BaseUrl::parse("http://registry:8081").unwrap().is_private());
        for bad in ["", "localhost:8081", "ftp://a", "http://", "http://a/?b=c", "http://a b"] {
            assert_eq!(BaseUrl::parse(bad).unwrap_err().kind(), SchemaErrorKind::Config, "{bad}");
        }
        let error = BaseUrl::parse("http://alice:hunter2@registry").unwrap_err().to_string();
        assert!(error.contains("basic_auth") && !error.contains("hunter2"), "{error}");
    }
}
