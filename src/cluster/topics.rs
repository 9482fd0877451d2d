//! The topics of a snapshot, shared between one snapshot and the next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::snapshot::TopicMeta;

/// Number of parts that are copied one by one when one of their topics changes.
const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Arc<TopicMeta>>;

/// A map by name whose copy costs the same for a few topics and for thousands: a new topic copies the shard it falls into.
#[derive(Debug, Clone)]
pub(crate) struct TopicMap {
    shards: Vec<Arc<Shard>>,
}

impl TopicMap {
    pub(super) fn new() -> Self {
        Self { shards: vec![Arc::default(); SHARDS] }
    }

    fn shard(name: &str) -> usize {
        crc32c::crc32c(name.as_bytes()) as usize % SHARDS
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<TopicMeta>> {
        self.shards[Self::shard(name)].get(name)
    }

    pub(crate) fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Puts a topic in; returns whether there was one of its name.
    pub(crate) fn insert(&mut self, topic: TopicMeta) -> bool {
        let name = Arc::clone(&topic.name);
        match Arc::make_mut(&mut self.shards[Self::shard(&name)]).entry(name) {
            Entry::Occupied(mut known) => {
                known.insert(Arc::new(topic));
                true
            }
            Entry::Vacant(place) => {
                place.insert(Arc::new(topic));
                false
            }
        }
    }

    /// Takes a topic out; returns whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let shard = &mut self.shards[Self::shard(name)];
        shard.contains_key(name) && Arc::make_mut(shard).remove(name).is_some()
    }

    pub(super) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        for shard in &mut self.shards {
            if shard.keys().any(|name| !is_kept(name)) {
                Arc::make_mut(shard).retain(|name, _| is_kept(name));
            }
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<TopicMeta>> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Changes every topic.
    #[cfg(test)]
    pub(crate) fn for_each_mut(&mut self, change: impl Fn(&mut TopicMeta)) {
        for shard in &mut self.shards {
            Arc::make_mut(shard).values_mut().for_each(|topic| change(Arc::make_mut(topic)));
        }
    }
}
