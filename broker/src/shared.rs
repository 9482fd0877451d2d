//! State shared by all connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::cluster::Cluster;
use crate::config::BrokerConfig;
use crate::coordinator::GroupCoordinator;
use crate::fault::{Fault, Hook, RequestInfo};
use crate::fetch_session::FetchSessions;

/// State of the broker. Locks are held briefly, never across an await, and never two at a time.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: BrokerConfig,
    cluster: Mutex<Cluster>,
    groups: Mutex<GroupCoordinator>,
    sessions: Mutex<FetchSessions>,
    hook: Mutex<Option<Hook>>,
    #[cfg(feature = "tls")]
    tls: Mutex<Option<crate::TlsServer>>,
    requests: Mutex<BTreeMap<i16, u64>>,
    pub connections: AtomicUsize,
}

impl Shared {
    pub fn new(mut config: BrokerConfig, cluster: Cluster) -> Self {
        Self {
            cluster: Mutex::new(cluster),
            groups: Mutex::new(GroupCoordinator::new(config.initial_rebalance_delay, config.session_timeout)),
            sessions: Mutex::default(),
            hook: Mutex::new(config.hook.take()),
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
        tokio::time::Instant::now().into_std()
    }
}

/// A panic under the lock leaves the state consistent: each step is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
