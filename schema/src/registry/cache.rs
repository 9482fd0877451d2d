//! Cache of responses in which concurrent callers of a key share one request.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use tokio::time::Instant;

use crate::error::SchemaError;

type Fetch<V> = Pin<Box<dyn Future<Output = Result<V, SchemaError>> + Send>>;

/// Values by key, at most `capacity` of them: the one used longest ago is dropped for a new one.
pub(crate) struct Cache<K, V> {
    capacity: usize,
    /// Time after which a value is fetched again; none: never.
    ttl: Option<Duration>,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    values: HashMap<K, Entry<V>>,
    /// Requests in flight. Dropped when nobody waits for them any more.
    requests: HashMap<K, (u64, WeakShared<Fetch<V>>)>,
    /// Counts uses of values and requests.
    clock: u64,
}

struct Entry<V> {
    value: V,
    used_at: u64,
    expires_at: Option<Instant>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// Returns the maximum number of values.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the time after which a value is fetched again.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    pub(crate) fn new(capacity: usize, ttl: Option<Duration>) -> Self {
        let state = State { values: HashMap::new(), requests: HashMap::new(), clock: 0 };
        Self { capacity, ttl, state: Mutex::new(state) }
    }

    /// Returns the value of the key, from the cache or from `fetch`. A failure is returned to all
    /// callers that waited for it, and is not cached.
    ///
    /// # Cancellation
    /// Dropping the future leaves the request to the other callers that wait for it.
    pub(crate) async fn get<Q>(&self, key: &Q, fetch: impl FnOnce() -> Fetch<V>) -> Result<V, SchemaError>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let (number, request) = {
            let mut state = self.lock();
            let now = self.ttl.map(|_| Instant::now());
            if let Some(value) = state.value(key, now) {
                return Ok(value);
            }
            state.request(key, fetch)
        };
        let result = request.await;
        let mut state = self.lock();
        // Each of the callers gets here; the first one ends the request.
        if state.requests.get(key).is_some_and(|(current, _)| *current == number) {
            state.requests.remove(key);
            if let Ok(value) = &result {
                let expires_at = self.ttl.map(|ttl| Instant::now() + ttl);
                state.insert(key.to_owned(), value.clone(), expires_at, self.capacity);
            }
        }
        result
    }

    /// Drops the values of these keys.
    pub(crate) fn remove_if(&self, mut is_obsolete: impl FnMut(&K) -> bool) {
        let mut state = self.lock();
        state.values.retain(|key, _| !is_obsolete(key));
        // Their responses may be older than what makes the values obsolete.
        state.requests.retain(|key, _| !is_obsolete(key));
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone, V: Clone> State<K, V> {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn value<Q>(&mut self, key: &Q, now: Option<Instant>) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let used_at = self.tick();
        let entry = self
            .values
            .get_mut(key)
            .filter(|entry| entry.expires_at.is_none_or(|at| now.is_some_and(|now| now < at)))?;
        entry.used_at = used_at;
        Some(entry.value.clone())
    }

    /// Returns the request in flight for this key, or a new one.
    fn request<Q>(&mut self, key: &Q, fetch: impl FnOnce() -> Fetch<V>) -> (u64, Shared<Fetch<V>>)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let current = self.requests.get(key).and_then(|(number, request)| Some((*number, request.upgrade()?)));
        if let Some(current) = current {
            return current;
        }
        self.requests.retain(|_, (_, request)| request.upgrade().is_some());
        let (number, request) = (self.tick(), fetch().shared());
        if let Some(weak) = request.downgrade() {
            self.requests.insert(key.to_owned(), (number, weak));
        }
        (number, request)
    }

    fn insert(&mut self, key: K, value: V, expires_at: Option<Instant>, capacity: usize) {
        if !self.values.contains_key(&key) && self.values.len() >= capacity {
            let oldest = self.values.iter().min_by_key(|(_, entry)| entry.used_at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.values.remove(&oldest);
            }
        }
        if capacity > 0 {
            let used_at = self.tick();
            self.values.insert(key, Entry { value, used_at, expires_at });
        }
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.state.lock().map(|state| state.values.len()).unwrap_or_default();
        f.debug_struct("Cache").field("values", &values).field("capacity", &self.capacity).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::error::SchemaErrorKind;

    #[derive(Default, Clone)]
    struct Source {
        fetches: Arc<AtomicU32>,
        fails: bool,
    }

    impl Source {
        fn fetch(&self, value: u32) -> Fetch<u32> {
            let source = self.clone();
            Box::pin(async move {
                source.fetches.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                if source.fails { Err(SchemaError::new(SchemaErrorKind::Unavailable, "down")) } else { Ok(value) }
            })
        }

        fn fetches(&self) -> u32 {
            self.fetches.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_of_a_key_share_a_request() {
        let (cache, source) = (Cache::new(2, None), Source::default());
        let (a, b) = tokio::join!(cache.get(&1, || source.fetch(10)), cache.get(&1, || source.fetch(10)));
        assert_eq!((a.unwrap(), b.unwrap(), source.fetches()), (10, 10, 1));
        assert_eq!(cache.get(&1, || source.fetch(99)).await.unwrap(), 10);
        assert_eq!(source.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_caller_leaves_the_request_to_the_others() {
        let (cache, source) = (Cache::new(2, None), Source::default());
        let first = tokio::time::timeout(Duration::from_millis(500), cache.get(&1, || source.fetch(10)));
        let second = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cache.get(&1, || source.fetch(10)).await
        };
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_err());
        assert_eq!((second.unwrap(), source.fetches()), (10, 1));
        // Without others it ends, and the next caller begins another one.
        _ = tokio::time::timeout(Duration::from_millis(500), cache.get(&2, || source.fetch(20))).await;
        assert_eq!(cache.get(&2, || source.fetch(20)).await.unwrap(), 20);
        assert_eq!(source.fetches(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_shared_and_not_cached() {
        let cache = Cache::new(2, None);
        let (fails, works) = (Source { fails: true, ..Source::default() }, Source::default());
        let (a, b) = tokio::join!(cache.get(&1, || fails.fetch(1)), cache.get(&1, || fails.fetch(1)));
        assert!(a.is_err() && b.is_err());
        assert_eq!(fails.fetches(), 1);
        assert_eq!(cache.get(&1, || works.fetch(1)).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_value_used_longest_ago_is_dropped() {
        let (cache, source) = (Cache::new(2, None), Source::default());
        for key in [1, 2, 1, 3] {
            cache.get(&key, || source.fetch(key)).await.unwrap();
        }
        assert_eq!(source.fetches(), 3);
        cache.get(&1, || source.fetch(1)).await.unwrap();
        assert_eq!(source.fetches(), 3, "1 was used after 2");
        cache.get(&2, || source.fetch(2)).await.unwrap();
        assert_eq!(source.fetches(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn values_expire_and_are_dropped_by_key() {
        let (cache, source) = (Cache::new(9, Some(Duration::from_secs(60))), Source::default());
        cache.get(&1, || source.fetch(1)).await.unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        cache.get(&1, || source.fetch(1)).await.unwrap();
        assert_eq!(source.fetches(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        cache.get(&1, || source.fetch(1)).await.unwrap();
        assert_eq!(source.fetches(), 2);
        cache.remove_if(|key| *key == 1);
        cache.get(&1, || source.fetch(1)).await.unwrap();
        assert_eq!(source.fetches(), 3);
    }
}
