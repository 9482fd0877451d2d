//! Changes to a dead letter's record before it is replayed.

use ailurus::Headers;
use ailurus::processor::Truncation;
use bytes::Bytes;

use super::log::DeadLetterRecord;

/// Changes to a record; by default none.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// Value to replay instead; `Some(None)` is null.
    pub value: Option<Option<Bytes>>,
    /// Headers to replay with, in place of those of their names.
    pub set_headers: Vec<(String, String)>,
    /// Names of headers to replay without.
    pub remove_headers: Vec<String>,
}

/// Value and headers of a record before and after an edit.
#[derive(Debug)]
pub struct Change {
    /// Those before.
    pub before: (Option<Bytes>, Headers),
    /// Those after.
    pub after: (Option<Bytes>, Headers),
}

impl Edit {
    /// Changes a record; returns what it changed, if anything.
    pub fn apply(&self, dead_letter: &mut DeadLetterRecord) -> Option<Change> {
        let DeadLetterRecord { record, info, .. } = dead_letter;
        let before = (record.value.clone(), info.headers.clone());
        if let Some(value) = &self.value {
            record.value.clone_from(value);
            if info.truncation == Truncation::Value {
                info.truncation = Truncation::Nothing; // nothing else is missing
            }
        }
        let is_replaced = |name: &[u8]| {
            self.remove_headers.iter().any(|n| n.as_bytes() == name)
                || self.set_headers.iter().any(|(n, _)| n.as_bytes() == name)
        };
        let kept: Headers = info.headers.iter().filter(|h| !is_replaced(h.key_bytes())).collect();
        info.headers = self.set_headers.iter().fold(kept, |headers, (name, value)| headers.with(name, value));
        let after = (record.value.clone(), info.headers.clone());
        (before != after).then_some(Change { before, after })
    }
}
