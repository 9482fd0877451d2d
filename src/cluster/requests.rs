//! Requests that belong to no producer and no consumer: to any broker, to the controller, to one
//! broker, to a coordinator.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    ApiVersionsResponse, DescribeConfigsRequest, FindCoordinatorRequest, FindCoordinatorResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::fields::text;
use super::{Cluster, broker_address};
use crate::config::BrokerAddr;
use crate::error::{Error, ErrorKind, Result, is_retriable_code};
use crate::failure::is_fatal;
use crate::wire::{Api, Connection, SUPPORTED_APIS, api_versions_request};

/// Returns whether a request fails in the same way with every broker. A rejected login is not among
/// these: a broker that restarts may reject one that others accept.
fn is_client_side(e: &Error) -> bool {
    is_fatal(e) || e.is_token_source_outage() || e.kind() == ErrorKind::Corrupt
}

/// Returns the kind of the errors, if all have the same.
fn common_kind(errors: &[Error]) -> Option<ErrorKind> {
    let first = errors.first()?.kind();
    errors.iter().all(|e| e.kind() == first).then_some(first)
}

/// Type of a broker among the resources that have settings.
const BROKER_RESOURCE: i8 = 4;
/// The broker's setting by which it creates missing topics.
const AUTO_CREATION: &str = "auto.create.topics.enable";

/// Time after which a request is sent to another broker, too.
const HEDGE_DELAY: Duration = Duration::from_secs(1);

/// API that only a KRaft controller serves: brokers register with it.
const BROKER_REGISTRATION: i16 = 62;
/// API that every broker serves, and no controller.
const METADATA: i16 = 3;

/// Returns whether these are the APIs of a controller, which clients do not use.
fn is_controller(served: &[ApiVersion]) -> bool {
    let serves = |key| served.iter().any(|api| api.api_key == key);
    serves(BROKER_REGISTRATION) && !serves(METADATA)
}

/// Explains an unsupported API by the versions that the broker offers.
async fn explain_unsupported<A: Api>(connection: &Connection, timeout: Duration) -> Option<Error> {
    let served = connection.request(api_versions_request(), timeout).await.ok()?.api_keys;
    let &(key, name, _) = SUPPORTED_APIS.iter().find(|(_, name, _)| *name == A::NAME)?;
    let (min, max) = A::VERSIONS;
    if is_controller(&served) {
        let what = format!(
            "{} is the port of a controller, not of a broker: use the port of one of the brokers' listeners",
            connection.peer()
        );
        return Some(Error::new(ErrorKind::Unsupported, what));
    }
    let what = match served.iter().find(|api| api.api_key == key).map(|api| (api.min_version, api.max_version)) {
        None => format!("it serves {} others, which Admin::api_versions lists", served.len()),
        Some((low, high)) if high < min || low > max => {
            format!("it serves versions {low} to {high}, and this client supports {min} to {max}")
        }
        Some(_) => return None, // the request could not be encoded: its error has the reason
    };
    let peer = connection.peer();
    Some(Error::new(ErrorKind::Unsupported, format!("{peer} does not serve {name} (API {key}): {what}")))
}

pub(crate) fn check_api_versions(response: ApiVersionsResponse, broker: i32) -> Result<ApiVersionsResponse> {
    match response.error_code {
        0 => Ok(response),
        code => Err(Error::broker(code, format_args!("requesting the API versions of broker {broker}"))),
    }
}

/// The group or transactional id of a coordinator.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CoordinatorKey<'a> {
    Group(&'a str),
    /// A transactional id.
    Transaction(&'a str),
}

impl fmt::Display for CoordinatorKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(id) => write!(f, "group {id:?}"),
            Self::Transaction(id) => write!(f, "transactional id {id:?}"),
        }
    }
}

impl Cluster {
    /// Sends a read-only request to any broker: known brokers first, those with a connection before
    /// the others, then the configured ones. If there is no response within [`HEDGE_DELAY`], the
    /// request is sent to the next one, too, and the first response counts: a broker that hangs
    /// delays nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] with the error of each broker that was tried; [`ErrorKind::Config`]
    /// if a file of the settings can't be used.
    pub(crate) async fn request_any<A: Api>(&self, request: A, timeout: Duration) -> Result<A::Response> {
        let started = Instant::now();
        let mut errors = Vec::new();
        let mut candidates = self.candidates().into_iter();
        let mut requests = FuturesUnordered::new();
        loop {
            match candidates.next() {
                Some(address) => {
                    let request = request.clone();
                    requests.push(async move { self.request_at(&address, request, timeout).await });
                }
                None if requests.is_empty() => break,
                None => {}
            }
            tokio::select! {
                Some(outcome) = requests.next() => match outcome {
                    Ok(response) => return Ok(response),
                    // It would be the same with another broker.
                    Err(e) if is_client_side(&e) => return Err(e),
                    Err(e) => errors.push(e),
                },
                () = tokio::time::sleep(HEDGE_DELAY), if candidates.len() > 0 => {}
            }
        }
        let what = format!(
            "no broker could be reached in {:.1?}; errors {}; check Config::brokers and that the brokers run",
            started.elapsed(),
            errors.iter().map(Error::full).collect::<Vec<_>>().join("; ")
        );
        match common_kind(&errors) {
            Some(kind @ (ErrorKind::Authentication | ErrorKind::Config)) => {
                Err(Error::new(kind, what).into_transient())
            }
            _ => Err(Error::new(ErrorKind::Connect, what)),
        }
    }

    /// Sends a request to one broker.
    pub(crate) async fn request_to<A: Api>(&self, broker: i32, request: A, timeout: Duration) -> Result<A::Response> {
        let address = self.address(broker).await?;
        self.request_at(&address, request, timeout).await
    }

    /// Sends a request to an address, over the connection that such requests share.
    pub(crate) async fn request_at<A: Api>(
        &self,
        at: &BrokerAddr,
        request: A,
        timeout: Duration,
    ) -> Result<A::Response> {
        let connection = self.shared_connection(at).await?;
        match connection.request(request, timeout).await {
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                Err(explain_unsupported::<A>(&connection, timeout).await.unwrap_or(e))
            }
            Err(e) if e.kind() == ErrorKind::Disconnected && !connection.has_responded() => {
                Err(self.settings.explain_missing_login(at).await.map_or(e, |e| self.mark_transient_after_connect(e)))
            }
            Ok(response) => {
                self.has_connected.store(true, Ordering::Relaxed);
                Ok(response)
            }
            outcome => outcome,
        }
    }

    /// Returns the versions of each API that a broker serves.
    pub(crate) async fn api_versions(&self, broker: i32) -> Result<ApiVersionsResponse> {
        let response = self.request_to(broker, api_versions_request(), self.request_timeout()).await?;
        check_api_versions(response, broker)
    }

    /// Returns whether brokers create missing topics; `None` if they do not return that setting.
    pub(super) async fn creates_topics(&self) -> Option<bool> {
        let broker = *self.snapshot().brokers.keys().min()?;
        let resource = DescribeConfigsResource::default()
            .with_resource_type(BROKER_RESOURCE)
            .with_resource_name(text(&broker.to_string()))
            .with_configuration_keys(Some(vec![StrBytes::from_static_str(AUTO_CREATION)]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let response = self.request_to(broker, request, self.lookup_timeout()).await.ok()?;
        let mut settings = response.results.iter().filter(|r| r.error_code == 0).flat_map(|r| &r.configs);
        settings.find(|c| c.name.as_str() == AUTO_CREATION)?.value.as_ref()?.parse().ok()
    }

    /// Returns the broker id of a coordinator, whose address is known afterwards. Retries
    /// for the request timeout while the coordinator is being elected or loads.
    pub(crate) async fn find_coordinator(&self, key: CoordinatorKey<'_>) -> Result<i32> {
        let (key_type, id) = match key {
            CoordinatorKey::Group(id) => (0, id),
            CoordinatorKey::Transaction(id) => (1, id),
        };
        let mut attempts = self.attempts();
        loop {
            let request = FindCoordinatorRequest::default().with_key(text(id)).with_key_type(key_type);
            let response = self.request_any(request, self.lookup_timeout()).await?;
            if response.error_code == 0 {
                self.add_coordinator(&response);
                return Ok(response.node_id.0);
            }
            if !is_retriable_code(response.error_code) || !attempts.wait().await {
                return Err(Error::broker(response.error_code, format_args!("finding the coordinator of {key}")));
            }
        }
    }

    /// Adds a coordinator's address to the snapshot.
    fn add_coordinator(&self, response: &FindCoordinatorResponse) {
        let at = broker_address(&response.host, response.port);
        self.snapshot.send_if_modified(|s| {
            let new = s.brokers.get(&response.node_id.0) != Some(&at);
            if new {
                let mut next = (**s).clone();
                next.brokers.insert(response.node_id.0, at);
                *s = Arc::new(next);
            }
            new
        });
    }

    /// Returns the addresses to try, in their order.
    fn candidates(&self) -> Vec<BrokerAddr> {
        let snapshot = self.snapshot();
        let mut known: Vec<_> = snapshot.brokers.values().cloned().collect();
        fastrand::shuffle(&mut known);
        known.sort_by_key(|a| !self.has_connection(a));
        let mut all = Vec::new();
        for address in known.into_iter().chain(self.config.brokers.iter().cloned()) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    fn has_connection(&self, at: &BrokerAddr) -> bool {
        let slot = self.connections.lock().get(at).cloned();
        slot.and_then(|s| s.try_lock().ok().and_then(|c| c.as_ref().map(|c| !c.is_closed()))).unwrap_or(false)
    }

    /// Makes a rejected login transient if one succeeded before: it may be rejected for a while,
    /// when brokers restart one after the other or a file of the settings is replaced.
    pub(super) fn mark_transient_after_connect(&self, e: Error) -> Error {
        let has_connected = self.has_connected.load(Ordering::Relaxed);
        if has_connected && matches!(e.kind(), ErrorKind::Authentication | ErrorKind::Config) {
            e.into_transient()
        } else {
            e
        }
    }

    /// Returns the connection to an address that requests share, and opens it if necessary.
    async fn shared_connection(&self, at: &BrokerAddr) -> Result<Arc<Connection>> {
        let closed = || Error::new(ErrorKind::Closed, "the client is closed");
        let slot = {
            let mut slots = self.connections.lock();
            // Under the lock: `close` cancels first, so it either finds this slot or is seen here.
            if self.cancel.is_cancelled() {
                return Err(closed());
            }
            Arc::clone(slots.entry(at.clone()).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| !c.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        let connection = self.cancel.run_until_cancelled(self.settings.connect(at)).await;
        let connection = connection.ok_or_else(closed)?.map_err(|e| self.mark_transient_after_connect(e))?;
        let connection = Arc::new(connection);
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_recognised_by_its_apis() {
        let of = |keys: &[i16]| {
            is_controller(&keys.iter().map(|key| ApiVersion::default().with_api_key(*key)).collect::<Vec<_>>())
        };
        assert!(of(&[1, 18, 52, BROKER_REGISTRATION]));
        assert!(!of(&[METADATA, 18]), "a broker");
        assert!(!of(&[METADATA, 18, BROKER_REGISTRATION]), "a broker that forwards");
        assert!(!of(&[18]), "neither");
    }
}
