//! The topics in use: metadata is requested for these alone. A topic that was not used for a while
//! is forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::Lock;

/// The use of a topic, shared by its users.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    /// True if it was used since the last refresh.
    used: AtomicBool,
    /// Number of [`Pin`]s.
    pins: AtomicUsize,
}

impl Interest {
    /// Marks the topic as used. Cheap enough for every record.
    #[inline]
    pub(crate) fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// Keeps a topic in use until it is dropped.
#[derive(Debug)]
pub(crate) struct Pin(Arc<Interest>);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.touch(); // its idle time starts now
        self.0.pins.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Entry {
    interest: Arc<Interest>,
    used_at: Instant,
}

/// The topics in use.
#[derive(Debug, Default)]
pub(super) struct Interests(Lock<HashMap<Arc<str>, Entry>>);

impl Interests {
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Marks a topic as used, and adds it if it is new.
    pub(super) fn add(&self, name: &Arc<str>, now: Instant) -> Arc<Interest> {
        let mut entries = self.0.lock();
        let entry = entries.entry(Arc::clone(name)).or_insert_with(|| Entry { interest: Arc::default(), used_at: now });
        entry.interest.touch();
        Arc::clone(&entry.interest)
    }

    /// Keeps a topic in use until the pin is dropped.
    pub(super) fn pin(&self, name: &Arc<str>, now: Instant) -> Pin {
        let interest = self.add(name, now);
        interest.pins.fetch_add(1, Ordering::Relaxed);
        Pin(interest)
    }

    /// Forgets the topics that were not used for longer than `max_idle`. Returns the others.
    pub(super) fn expire(&self, now: Instant, max_idle: Duration) -> Vec<Arc<str>> {
        let mut entries = self.0.lock();
        entries.retain(|_, entry| {
            if entry.interest.used.swap(false, Ordering::Relaxed) || entry.interest.pins.load(Ordering::Relaxed) > 0 {
                entry.used_at = now;
            }
            now.duration_since(entry.used_at) <= max_idle
        });
        entries.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_forgotten_after_the_idle_time() {
        let idle = Duration::from_secs(300);
        let (interests, start) = (Interests::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (produced, consumed): (Arc<str>, Arc<str>) = ("produced".into(), "consumed".into());
        let used = interests.add(&produced, at(0));
        let pin = interests.pin(&consumed, at(0));
        assert_eq!(interests.expire(at(10), idle).len(), 2, "both have just been used");
        used.touch();
        assert_eq!(interests.expire(at(400), idle).len(), 2, "one was used since, the other is pinned");
        assert_eq!(interests.expire(at(701), idle), [Arc::clone(&consumed)]);
        drop(pin);
        assert_eq!(interests.expire(at(5_000), idle).len(), 1, "it was used until now");
        assert!(interests.expire(at(5_301), idle).is_empty());
    }
}
