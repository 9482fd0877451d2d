//! Injects faults: decides for each request which fault happens to it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ailurus_broker::{Broker, RequestInfo};
use fastrand::Rng;

use crate::fault::{Effect, Fault};

/// A fault that was injected. It stays when this is dropped.
///
/// ```
/// # async fn example(cluster: ailurus_testing::TestCluster) -> Result<(), ailurus_testing::TestError> {
/// let fault = cluster.inject(ailurus_testing::fault::not_leader().times(3));
/// cluster.until_idle().await?;
/// assert_eq!(fault.fired(), 3, "the test met the fault");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct InjectedFault(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    fired: AtomicU32,
    is_cleared: AtomicBool,
}

impl InjectedFault {
    /// Returns the number of requests that it has happened to: a test whose fault never fired tests
    /// nothing.
    pub fn fired(&self) -> u32 {
        self.0.fired.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn clear(&self) {
        self.0.is_cleared.store(true, Ordering::Relaxed);
    }
}

/// The faults of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Faults(Arc<Mutex<Rules>>);

#[derive(Debug)]
struct Rules {
    rng: Rng,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    counts: Arc<Counts>,
}

impl Faults {
    /// Creates the faults of a cluster, and sets the hook by which they happen.
    pub fn install(broker: &Broker, seed: u64) -> Self {
        let faults = Self::new(seed);
        let hooked = faults.clone();
        broker.set_hook(move |request| hooked.effect_on(request));
        faults
    }

    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Rules { rng: Rng::with_seed(seed), rules: Vec::new() })))
    }

    pub fn inject(&self, fault: Fault) -> InjectedFault {
        let counts = Arc::new(Counts::default());
        self.with(|rules| rules.rules.push(Rule { fault, counts: Arc::clone(&counts) }));
        InjectedFault(counts)
    }

    pub fn clear(&self) {
        self.with(|rules| rules.rules.clear());
    }

    fn effect_on(&self, request: &RequestInfo<'_>) -> Option<Effect> {
        self.with(|rules| rules.effect_on(request.api_key, request.node, request.client_id))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Rules) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rules {
    /// Returns what happens to a request: the first of the faults that concern it. The others keep
    /// their counts for later requests.
    fn effect_on(&mut self, api_key: i16, node: i32, client_id: &str) -> Option<Effect> {
        self.rules.retain(|rule| rule.fault.times != Some(0) && !rule.counts.is_cleared.load(Ordering::Relaxed));
        for Rule { fault, counts } in self.rules.iter_mut().filter(|r| r.fault.concerns(api_key, node, client_id)) {
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if fault.chance < 1.0 && self.rng.f64() >= fault.chance {
                continue;
            }
            fault.times = fault.times.map(|times| times - 1);
            counts.fired.fetch_add(1, Ordering::Relaxed);
            return Some(fault.effect);
        }
        None
    }
}

#[cfg(test)]
mod tests;
