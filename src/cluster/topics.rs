//! The topics of a snapshot, which shares them with the next one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::snapshot::TopicMeta;

/// Number of shards. A change of a topic copies its shard.
const SHARDS: usize = 64;

type Shard = HashMap<Arc<str>, Arc<TopicMeta>>;

/// Topics by name, in a map that is as cheap to copy with thousands of topics as with a few: a
/// change copies one shard.
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

    /// Inserts a topic. Returns whether it replaced one.
    pub(crate) fn insert(&mut self, topic: TopicMeta) -> bool {
        let name = Arc::clone(&topic.name);
        match Arc::make_mut(&mut self.shards[Self::shard(&name)]).entry(name) {
            Entry::Occupied(mut known) => {
                known.insert(Arc::new(topic));
                true
            }
            Entry::Vacant(slot) => {
                slot.insert(Arc::new(topic));
                false
            }
        }
    }

    /// Removes a topic. Returns whether it was there.
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
