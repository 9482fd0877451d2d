//! The components that run on a client and are part of its health.

use std::any::Any;
use std::sync::{Arc, Weak};

use crate::lock::Lock;

/// The components that run on a client. Their types belong to the layers above, which own them.
#[derive(Debug, Default)]
pub(crate) struct ComponentRegistry {
    running: Lock<Vec<Weak<dyn Any + Send + Sync>>>,
    /// One of each type, for the life of the client.
    shared: Lock<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl ComponentRegistry {
    pub(crate) fn add<T: Any + Send + Sync>(&self, component: &Arc<T>) {
        let weak = Arc::downgrade(component);
        let mut all = self.running.lock();
        all.retain(|w| w.strong_count() > 0);
        all.push(weak);
    }

    /// Returns the components of a type that are still running, in the order in which they started.
    pub(crate) fn running<T: Any + Send + Sync>(&self) -> Vec<Arc<T>> {
        let all: Vec<_> = self.running.lock().iter().filter_map(Weak::upgrade).collect();
        all.into_iter().filter_map(|any| any.downcast().ok()).collect()
    }

    /// Returns the one component of a type that all users of the client share, made at the first call.
    pub(crate) fn shared<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut all = self.shared.lock();
        if let Some(found) = all.iter().find_map(|any| Arc::clone(any).downcast().ok()) {
            return found;
        }
        let new = Arc::<T>::default();
        all.push(Arc::<T>::clone(&new));
        new
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

    #[test]
    fn a_shared_component_is_made_once_for_each_type() {
        let registry = ComponentRegistry::default();
        let first = registry.shared::<Lock<u8>>();
        *first.lock() = 7;
        assert!(Arc::ptr_eq(&first, &registry.shared()));
        assert_eq!(*registry.shared::<Lock<u16>>().lock(), 0);
    }
}
