//! State shared by all connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::BrokerConfig;
use crate::coordinator::GroupCoordinator;
use crate::fault::{Fault, Hook, RequestInfo};
use crate::features::Features;
use crate::fetch_session::FetchSessions;
use crate::held::HeldRequests;
use crate::isolation::Isolation;
use crate::transaction::TransactionCoordinator;

/// State of the broker. Locks are held briefly and never across an await. Only the one of the
/// transactions is held while another is taken.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: BrokerConfig,
    cluster: Mutex<Cluster>,
    groups: Mutex<GroupCoordinator>,
    transactions: Mutex<TransactionCoordinator>,
    features: Mutex<Features>,
    held: Mutex<HeldRequests>,
    sessions: Mutex<FetchSessions>,
    hook: Mutex<Option<Hook>>,
    pub isolation: Isolation,
    #[cfg(feature = "tls")]
    tls: Mutex<Option<crate::TlsServer>>,
    requests: Mutex<BTreeMap<i16, u64>>,
    pub connections: AtomicUsize,
}

impl Shared {
    pub fn new(mut config: BrokerConfig, cluster: Cluster) -> Self {
        let transactions = TransactionCoordinator::new(
            config.versions.transaction_rules(),
            config.max_transaction_timeout,
            config.transactional_id_expiration,
        );
        Self {
            cluster: Mutex::new(cluster),
            transactions: Mutex::new(transactions),
            features: Mutex::new(config.versions.features()),
            held: Mutex::default(),
            groups: Mutex::new(GroupCoordinator::new(config.initial_rebalance_delay, config.session_timeout)),
            sessions: Mutex::default(),
            hook: Mutex::new(config.hook.take()),
            isolation: Isolation::default(),
            #[cfg(feature = "tls")]
            tls: Mutex::new(config.tls.take()),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            config,
        }
    }

    pub fn sessions(&self) -> MutexGuard<'_, FetchSessions> {
        lock(&self.sessions)
    }

    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        lock(&self.cluster)
    }

    pub fn groups(&self) -> MutexGuard<'_, GroupCoordinator> {
        lock(&self.groups)
    }

    pub fn transactions(&self) -> MutexGuard<'_, TransactionCoordinator> {
        lock(&self.transactions)
    }

    pub fn features(&self) -> MutexGuard<'_, Features> {
        lock(&self.features)
    }

    pub fn held(&self) -> MutexGuard<'_, HeldRequests> {
        lock(&self.held)
    }

    pub fn set_hook(&self, hook: Option<Hook>) {
        *lock(&self.hook) = hook;
    }

    #[cfg(feature = "tls")]
    pub fn set_tls(&self, tls: Option<crate::TlsServer>) {
        *lock(&self.tls) = tls;
    }

    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<crate::TlsServer> {
        lock(&self.tls).clone()
    }

    /// Counts a request and returns the fault that the hook injects.
    pub fn fault_for(&self, request: &RequestInfo<'_>) -> Option<Fault> {
        *lock(&self.requests).entry(request.api_key).or_default() += 1;
        self.fault_for_marker(request)
    }

    /// Returns the fault that the hook injects into the marker of a transaction, which no client
    /// has requested.
    pub fn fault_for_marker(&self, request: &RequestInfo<'_>) -> Option<Fault> {
        let hook = lock(&self.hook).clone();
        hook.and_then(|hook| hook.fault_for(request))
    }

    pub fn requests(&self) -> BTreeMap<i16, u64> {
        lock(&self.requests).clone()
    }

    pub fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn cluster_id(&self) -> &'static str {
        "ailurus-broker"
    }

    /// Deletes a topic and its committed offsets; returns false if there was none.
    pub fn delete_topic(&self, name: &str) -> bool {
        let deleted = self.cluster().delete_topic(name);
        if deleted {
            self.groups().delete_offsets_of_topic(name);
        }
        deleted
    }

    /// Returns the time of the runtime's clock, which tests may pause.
    pub fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A panic under the lock leaves the state consistent: each step is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the time in milliseconds since 1970: of the system's clock, moved on by what tests have
/// advanced the runtime's.
#[allow(clippy::disallowed_methods, reason = "the real clock is what the paused one is compared with")]
pub(crate) fn now_ms() -> i64 {
    let (real, paused) = (std::time::Instant::now(), Instant::now().into_std());
    let now = SystemTime::now() + paused.saturating_duration_since(real) - real.saturating_duration_since(paused);
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
