//! An in-memory schema registry with Confluent's API, which Redpanda's registry and others have too: for tests, demos and local
//! development. Feature `registry`.
//!
//! It has subjects, versions, references, deletes of both kinds, contexts, compatibility levels and modes, with the error codes of
//! Confluent's registry. Schemas of Avro are parsed, compared without regard to spelling, and checked for compatibility as Avro's
//! Java library does. Of JSON Schema and Protobuf the syntax is checked and equal schemas are recognised; any two of the same type
//! count as compatible. Metadata and rules are stored, and not applied. All state is in memory and lost at shutdown.
//!
//! Tests can inject [faults](RegistryFault), take the registry [down](Registry::stop) and bring it [up](Registry::restart) again, and
//! [see its requests](Registry::requests).
//!
//! ```
//! use ailurus_broker::registry::{Registry, RegistryFault};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let registry = Registry::start().await?;
//! println!("point a client at {}", registry.url());
//!
//! // The next two requests fail, as they do while a registry elects a new primary.
//! let no_primary = RegistryFault::Error { status: 500, error_code: 50004, message: "Primary not known.".into() };
//! registry.inject(2, no_primary);
//! // … what is tested retries …
//! assert_eq!(registry.request_count(), 0); // here nothing was
//! registry.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod api;
mod avro;
mod config;
mod definition;
mod error;
mod fault;
mod json_text;
mod level;
mod server;
mod store;
mod subject;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::listener::{self, ReservedPort};
use server::{Server, Shared, locked};

pub use config::RegistryConfig;
pub use fault::{RegistryFault, RegistryRequest};

/// A running schema registry.
///
/// [`shutdown`](Self::shutdown) ends its task and waits for it; dropping the registry aborts it.
///
/// ```
/// use ailurus_broker::registry::Registry;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let registry = Registry::start().await?;
/// registry.stop().await; // connections are refused
/// registry.restart().await?; // at the same address, with the same schemas
/// registry.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Running(Server),
    /// With the port, if it could be reserved.
    Stopped(Option<ReservedPort>),
}

impl Registry {
    /// Starts a registry with default settings: on a free port of 127.0.0.1. On return it listens.
    ///
    /// # Errors
    ///
    /// If no port is free.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(RegistryConfig::default()).await
    }

    /// Starts a registry. On return it listens.
    ///
    /// # Errors
    ///
    /// If the address is in use or not local.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn start_with(config: RegistryConfig) -> io::Result<Self> {
        let ip = config.listen.ip();
        let (listener, port) = listener::listen(config.listen).await?;
        let shared = Arc::new(Shared::new(config));
        let server = Server::start(shared.clone(), listener);
        Ok(Self { address: SocketAddr::new(ip, port), shared, state: Mutex::new(State::Running(server)) })
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL for clients on this machine: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}")
    }

    /// Injects a fault into the next requests, `times` of them. Faults that were injected before come first.
    pub fn inject(&self, times: u64, fault: RegistryFault) {
        locked(&self.shared.faults).next.push_back((times, fault));
    }

    /// Sets a hook that sees every request without an injected fault, before it is served, and may inject one. It replaces an
    /// earlier hook. It runs under a lock: it must not call the registry.
    pub fn set_hook(&self, hook: impl Fn(&RegistryRequest) -> Option<RegistryFault> + Send + Sync + 'static) {
        locked(&self.shared.faults).hook = Some(Arc::new(hook));
    }

    /// Removes the hook and all faults to come.
    pub fn clear_faults(&self) {
        *locked(&self.shared.faults) = fault::Faults::default();
    }

    /// Returns the number of requests so far, those with a fault too.
    pub fn request_count(&self) -> u64 {
        self.shared.request_count.load(Ordering::Relaxed)
    }

    /// Returns the newest requests, oldest first; at most 10,000.
    pub fn requests(&self) -> Vec<RegistryRequest> {
        locked(&self.shared.requests).iter().cloned().collect()
    }

    /// Takes the registry down: closes every connection and refuses new ones. The port stays reserved.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the registry is down, and its port may be taken by others.
    pub async fn stop(&self) {
        let state = std::mem::replace(&mut *locked(&self.state), State::Stopped(None));
        let port = match state {
            State::Running(server) => server.stop().await,
            State::Stopped(port) => port,
        };
        *locked(&self.state) = State::Stopped(port);
    }

    /// Brings the registry up again at its address, with the schemas that it had. Nothing happens if it is up.
    ///
    /// # Errors
    ///
    /// If the port was taken by others, because it could not be reserved.
    pub async fn restart(&self) -> io::Result<()> {
        let reserved = match &mut *locked(&self.state) {
            State::Running(_) => return Ok(()),
            State::Stopped(port) => port.take(),
        };
        let listener = match reserved {
            Some(port) => port.listen()?,
            None => listener::listen(self.address).await?.0,
        };
        *locked(&self.state) = State::Running(Server::start(self.shared.clone(), listener));
        Ok(())
    }

    /// Ends the registry, and waits until its connections are closed.
    pub async fn shutdown(self) {
        self.stop().await;
    }
}
