//! Finalized features (KIP-584).

/// Feature that selects the version of the transaction protocol (KIP-890).
const TRANSACTION_VERSION: &str = "transaction.version";

/// A feature as in ApiVersions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Feature {
    pub name: &'static str,
    /// Lowest and highest level that the broker supports.
    pub supported: (i16, i16),
    /// Finalized level; a level of 0 is not reported.
    pub level: i16,
}

/// Features of a broker, and the epoch of their last change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Features {
    features: Vec<Feature>,
    epoch: i64,
}

impl Features {
    pub fn new(features: Vec<Feature>) -> Self {
        Self { features, epoch: 1 }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Feature> {
        self.features.iter()
    }

    /// Returns the epoch; `None` for a broker without features.
    pub fn epoch(&self) -> Option<i64> {
        (!self.features.is_empty()).then_some(self.epoch)
    }

    /// Returns the level of `transaction.version`; `None` for a broker without it.
    pub fn transaction_version(&self) -> Option<i16> {
        self.features.iter().find(|f| f.name == TRANSACTION_VERSION).map(|f| f.level)
    }

    /// Changes the level of `transaction.version`; returns false if the broker does not support it.
    pub fn set_transaction_version(&mut self, level: i16) -> bool {
        let found = self.features.iter_mut().find(|f| f.name == TRANSACTION_VERSION);
        let Some(found) = found.filter(|f| (f.supported.0..=f.supported.1).contains(&level)) else { return false };
        self.epoch += i64::from(found.level != level);
        found.level = level;
        true
    }
}
