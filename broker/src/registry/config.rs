//! Settings of a registry.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Settings of a [`Registry`](super::Registry); [`Default`] is a free port of 127.0.0.1 without authentication.
///
/// ```
/// use ailurus_broker::registry::RegistryConfig;
///
/// let config = RegistryConfig::default().basic_auth("alice", "secret");
/// # let _ = config;
/// ```
#[derive(Clone)]
pub struct RegistryConfig {
    pub(super) listen: SocketAddr,
    /// Accepted values of the header `Authorization`; everyone may connect if there is none.
    pub(super) authorizations: Vec<String>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), authorizations: Vec::new() }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.authorizations.len();
        f.debug_struct("RegistryConfig").field("listen", &self.listen).field("credentials", &credentials).finish()
    }
}

impl RegistryConfig {
    /// Sets the address to listen on; port 0 takes a free one.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Accepts this user and password, and refuses requests without credentials with 401.
    #[must_use]
    pub fn basic_auth(mut self, user: &str, password: &str) -> Self {
        use base64::Engine;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.authorizations.push(format!("Basic {pair}"));
        self
    }

    /// Accepts this bearer token, and refuses requests without credentials with 401.
    #[must_use]
    pub fn bearer_token(mut self, token: &str) -> Self {
        self.authorizations.push(format!("Bearer {token}"));
        self
    }
}
