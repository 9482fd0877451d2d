//! The components that run on a client and are part of its health.

use std::any::Any;
use std::sync::{Arc, MutexGuard, Weak};

use crate::lock::Lock;

/// The components that run on a client. Their types belong to the layers above, which own them.
#[derive(Debug, Default)]
pub(crate) struct ComponentRegistry(Lock<Vec<Weak<dyn Any + Send + Sync>>>);

impl ComponentRegistry {
    pub(crate) fn add<T: Any + Send + Sync>(&self, component: &Arc<T>) {
        let weak = Arc::downgrade(component);
        let mut all = self.lock();
        all.retain(|w| w.strong_count() > 0);
        all.push(weak);
    }

    /// Returns the components of a type that are still running, in the order in which they started.
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
    fn components_are_found_by_type_while_they_live() {
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
