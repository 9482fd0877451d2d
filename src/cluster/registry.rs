//! What runs on a client and has a health of its own.

use crate::lock::Lock;
use std::any::Any;
use std::sync::{Arc, MutexGuard, Weak};

/// What runs on a client. Of which types that is, the layers above know; it is kept for as long as they keep it.
#[derive(Debug, Default)]
pub(crate) struct ComponentRegistry(Lock<Vec<Weak<dyn Any + Send + Sync>>>);

impl ComponentRegistry {
    pub(crate) fn add<T: Any + Send + Sync>(&self, running: &Arc<T>) {
        let weak = Arc::downgrade(running);
        let mut all = self.lock();
        all.retain(|w| w.strong_count() > 0);
        all.push(weak);
    }

    /// Those of a type that still run, in the order in which they began.
    pub(crate) fn running<T: Any + Send + Sync>(&self) -> Vec<Arc<T>> {
        let all: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        all.into_iter().filter_map(|any| any.downcast().ok()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn Any + Send + Sync>>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_found_by_its_type_while_it_lives() {
        let registry = ComponentRegistry::default();
        let (one, two, other) = (Arc::new(1_u8), Arc::new(2_u8), Arc::new("other"));
        registry.add(&one);
        registry.add(&other);
        registry.add(&two);
        assert_eq!(registry.running::<u8>(), [Arc::new(1), Arc::new(2)]);
        drop(one);
        assert_eq!(registry.running::<u8>(), [Arc::new(2)]);
        assert_eq!(registry.running::<&str>(), [other]);
    }
}
