//! Events that were applied: their ids, and the last applied offset of each partition.
//!
//! Ids are ordered by time and are kept from the *horizon* on, which only moves forward. An event's place in that order is
//! fixed by the event, so an event at or behind the horizon was applied if and only if its id is there, and of an event
//! before it there is no id. For those the last applied offset of the partition decides: handlers take a partition's records
//! in order, from the committed offset on, so all records up to the last applied one are done.

use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use uuid::Uuid;

use crate::Received;

/// Keys: milliseconds since 1970, [`Scope`], id.
const IDS: TableDefinition<(u64, u8, &str), ()> = TableDefinition::new("applied_ids");
/// Keys: [`Scope`], topic, partition. Values: the last applied offset.
const OFFSETS: TableDefinition<(u8, &str, i32), i64> = TableDefinition::new("applied_offsets");
const HORIZON: TableDefinition<(), u64> = TableDefinition::new("applied_horizon");

/// Part of the store; an event may have an effect in each.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Scope {
    Inventory = 1,
    Analytics = 2,
}

/// Events that were applied.
pub(super) struct AppliedEvents<'t> {
    ids: Table<'t, (u64, u8, &'static str), ()>,
    offsets: Table<'t, (u8, &'static str, i32), i64>,
    horizons: Table<'t, (), u64>,
    horizon: u64,
}

impl<'t> AppliedEvents<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let horizons = transaction.open_table(HORIZON)?;
        let horizon = horizons.get(())?.map_or(0, |h| h.value());
        Ok(Self { ids: transaction.open_table(IDS)?, offsets: transaction.open_table(OFFSETS)?, horizons, horizon })
    }

    /// Returns whether the event was applied before.
    pub(super) fn contains(&self, scope: Scope, event: &Received) -> Result<bool, redb::Error> {
        let (time, id) = identity(event);
        if time >= self.horizon {
            return Ok(self.ids.get((time, scope as u8, id.as_str()))?.is_some());
        }
        let last = self.offsets.get((scope as u8, &*event.topic, event.partition))?;
        Ok(last.is_some_and(|last| event.offset <= last.value()))
    }

    /// Adds an event that was applied.
    pub(super) fn insert(&mut self, scope: Scope, event: &Received) -> Result<(), redb::Error> {
        let (time, id) = identity(event);
        if time >= self.horizon {
            self.ids.insert((time, scope as u8, id.as_str()), ())?;
        }
        let place = (scope as u8, &*event.topic, event.partition);
        let last = self.offsets.get(place)?.map(|last| last.value());
        if last.is_none_or(|last| last < event.offset) {
            self.offsets.insert(place, event.offset)?;
        }
        Ok(())
    }

    /// Moves the horizon to `oldest`, and further if there are more ids than `max_ids`. Removes at most `most` ids, so that a
    /// commit stays short; ids before the horizon that are left do not count.
    pub(super) fn prune(mut self, oldest: u64, max_ids: u64, most: usize) -> Result<(), redb::Error> {
        self.horizon = self.horizon.max(oldest);
        for _ in 0..most {
            let Some(first) = self.ids.first()?.map(|(key, _)| key.value().0) else { break };
            if first >= self.horizon {
                if self.ids.len()? <= max_ids {
                    break;
                }
                self.horizon = first + 1;
            }
            self.ids.pop_first()?;
        }
        self.horizons.insert((), self.horizon)?;
        Ok(())
    }
}

/// Returns the position of an event in the order of ids, and its unique name, the same for each delivery.
fn identity(event: &Received) -> (u64, String) {
    let uuid = Uuid::parse_str(&event.id).ok();
    match uuid.filter(|uuid| uuid.get_version_num() == 7).and_then(|uuid| uuid.get_timestamp()) {
        Some(made) => {
            let (seconds, nanos) = made.to_unix();
            (seconds.saturating_mul(1000).saturating_add(u64::from(nanos) / 1_000_000), event.id.clone())
        }
        None => {
            let time = u64::try_from(event.time.as_millis()).unwrap_or(0);
            (time, format!("{}\n{}", event.id, event.source))
        }
    }
}
