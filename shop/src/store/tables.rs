//! The tables of the file, and the effect of updates on them.

use ailurus::{Error, ErrorKind};
use redb::{Database, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::StoreOptions;
use super::seen::{AppliedEvents, Scope};
use crate::events::{OrderStatus, StockChange};
use crate::{Money, OrderFact, Outcome, Received, Summary};

const FORMAT: u64 = 1;
const FORMATS: TableDefinition<(), u64> = TableDefinition::new("format");
const STOCK: TableDefinition<&str, i64> = TableDefinition::new("stock");
const EVENTS: TableDefinition<&str, u64> = TableDefinition::new("events_by_type");
/// Last status of each order.
const ORDERS: TableDefinition<&str, &str> = TableDefinition::new("orders");
const ORDERS_BY_STATUS: TableDefinition<&str, u64> = TableDefinition::new("orders_by_status");
/// Revenue in cents by currency.
const REVENUE: TableDefinition<&str, i64> = TableDefinition::new("revenue");

/// Effect of an event, and the event.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) effect: Effect,
    pub(super) received: Received,
}

#[derive(Debug)]
pub(super) enum Effect {
    Stock { product_id: String, previous_stock: Option<i64>, change: StockChange },
    Order(OrderFact),
}

impl Effect {
    fn scope(&self) -> Scope {
        match self {
            Self::Stock { .. } => Scope::Inventory,
            Self::Order(_) => Scope::Analytics,
        }
    }
}

/// Creates the tables, so that readers find them.
pub(super) fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut formats = transaction.open_table(FORMATS)?;
        let found = formats.get(())?.map(|format| format.value());
        if let Some(other) = found.filter(|found| *found != FORMAT) {
            let what = format!("it has format {other}, and this version reads format {FORMAT}");
            return Err(std::io::Error::other(what).into());
        }
        formats.insert((), FORMAT)?;
        Tables::open(&transaction)?;
        AppliedEvents::open(&transaction)?;
    }
    Ok(transaction.commit()?)
}

/// Applies updates in one transaction, which the caller commits. An update that can't be applied changes nothing and does not
/// affect the others. `now` is in milliseconds since 1970.
pub(super) fn apply(
    transaction: &WriteTransaction,
    updates: &[&Update],
    options: &StoreOptions,
    now: u64,
) -> Result<Vec<Result<Outcome, Error>>, redb::Error> {
    let mut seen = AppliedEvents::open(transaction)?;
    let mut tables = Tables::open(transaction)?;
    let mut outcomes = Vec::with_capacity(updates.len());
    for Update { effect, received } in updates {
        let scope = effect.scope();
        outcomes.push(if seen.contains(scope, received)? {
            Ok(Outcome::Duplicate)
        } else {
            match tables.apply(effect)? {
                Ok(()) => {
                    seen.insert(scope, received)?;
                    Ok(Outcome::Applied)
                }
                Err(what) => {
                    let Received { id, topic, partition, offset, .. } = received;
                    let place = format!("event {id} in {topic}/{partition} at offset {offset}");
                    Err(Error::new(ErrorKind::Event, format!("{place} can't be applied: {what}")))
                }
            }
        });
    }
    let retention = u64::try_from(options.retention.as_millis()).unwrap_or(u64::MAX);
    // More than a batch can add, so that a surplus shrinks.
    seen.prune(now.saturating_sub(retention), options.max_ids, 2 * updates.len())?;
    Ok(outcomes)
}

struct Tables<'t> {
    stock: Table<'t, &'static str, i64>,
    events: Table<'t, &'static str, u64>,
    orders: Table<'t, &'static str, &'static str>,
    orders_by_status: Table<'t, &'static str, u64>,
    revenue: Table<'t, &'static str, i64>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            stock: transaction.open_table(STOCK)?,
            events: transaction.open_table(EVENTS)?,
            orders: transaction.open_table(ORDERS)?,
            orders_by_status: transaction.open_table(ORDERS_BY_STATUS)?,
            revenue: transaction.open_table(REVENUE)?,
        })
    }

    /// Applies an effect. The inner error is of the event alone; nothing was changed then.
    fn apply(&mut self, effect: &Effect) -> Result<Result<(), String>, redb::Error> {
        match effect {
            Effect::Stock { product_id, previous_stock, change } => {
                let now = match change {
                    StockChange::To(stock) => Some(*stock),
                    StockChange::By(delta) => {
                        let known = self.stock.get(product_id.as_str())?.map(|stock| stock.value());
                        known.or(*previous_stock).unwrap_or(0).checked_add(*delta)
                    }
                };
                let Some(now) = now else {
                    return Ok(Err(format!("the stock of {product_id} would be out of range")));
                };
                self.stock.insert(product_id.as_str(), now)?;
            }
            Effect::Order(fact) => {
                if let Some((amount, currency)) = &fact.payment {
                    let sum = self.revenue.get(currency.as_str())?.map_or(0, |cents| cents.value());
                    let Some(sum) = sum.checked_add(amount.as_cents()) else {
                        return Ok(Err(format!("the revenue in {currency:?} would be out of range")));
                    };
                    self.revenue.insert(currency.as_str(), sum)?;
                }
                count(&mut self.events, &fact.event_type, 1)?;
                if let Some((order_id, status)) = &fact.order {
                    let before = self.orders.insert(order_id.as_str(), status.as_str())?.map(|s| s.value().to_owned());
                    if let Some(before) = before {
                        count(&mut self.orders_by_status, &before, -1)?;
                    }
                    count(&mut self.orders_by_status, status.as_str(), 1)?;
                }
            }
        }
        Ok(Ok(()))
    }
}

/// Changes a count; one that falls to zero is removed, so that only names in use have one.
fn count(table: &mut Table<'_, &'static str, u64>, name: &str, by: i64) -> Result<(), redb::Error> {
    let counted = table.get(name)?.map_or(0, |n| n.value()).saturating_add_signed(by);
    if counted == 0 {
        table.remove(name)?;
    } else {
        table.insert(name, counted)?;
    }
    Ok(())
}

pub(super) fn stock(transaction: &ReadTransaction, product_id: &str) -> Result<Option<i64>, redb::Error> {
    Ok(transaction.open_table(STOCK)?.get(product_id)?.map(|stock| stock.value()))
}

pub(super) fn order_status(transaction: &ReadTransaction, order_id: &str) -> Result<Option<OrderStatus>, redb::Error> {
    let status = transaction.open_table(ORDERS)?.get(order_id)?.map(|status| status.value().to_owned());
    Ok(status.map(OrderStatus::from))
}

pub(super) fn summary(transaction: &ReadTransaction) -> Result<Summary, redb::Error> {
    let mut summary = Summary::default();
    for row in transaction.open_table(EVENTS)?.iter()? {
        let (name, n) = row?;
        summary.events.insert(name.value().to_owned(), n.value());
    }
    for row in transaction.open_table(ORDERS_BY_STATUS)?.iter()? {
        let (name, n) = row?;
        summary.orders.insert(name.value().to_owned(), n.value());
    }
    for row in transaction.open_table(REVENUE)?.iter()? {
        let (currency, cents) = row?;
        summary.revenue.insert(currency.value().to_owned(), Money::cents(cents.value()));
    }
    Ok(summary)
}
