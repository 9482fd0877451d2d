//! The producers of a transactional id, one after the other, and what they report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::producer::{TransactionAction, TransactionOutcome};
use ailurus::{Client, Consumer, ProducerRecord, TopicPartition, Transaction, TransactionalProducer};
use ailurus_broker::Broker;
use ailurus_test_support::transaction_history::{OutputId, SetId, SetStatus, TransactionHistory};
use tokio::time::{sleep, timeout};

use super::plan::{End, IdPlan, OwnerPlan, Plan, TransactionPlan};

/// Number of attempts to start a producer, and to begin a transaction.
const ATTEMPTS: u32 = 3;
/// Streams of an id.
const MAX_OWNERS: u32 = 8;

/// State that all producers of a seed share.
#[derive(Debug)]
pub struct Shared {
    pub plan: Plan,
    pub broker: Arc<Broker>,
    /// The producers' client.
    pub client: Client,
    /// The client of readers, of members of groups, and of what looks at the result.
    pub observer: Client,
    pub topic: String,
    /// A clock that rises with each look.
    clock: AtomicU64,
    /// The last set that a reader of committed records has read.
    pub last_read: Mutex<Option<SetId>>,
}

impl Shared {
    pub fn new(plan: Plan, broker: Arc<Broker>, client: Client, observer: Client, topic: &str) -> Arc<Self> {
        let (clock, last_read) = (AtomicU64::new(0), Mutex::new(None));
        Arc::new(Self { plan, broker, client, observer, topic: topic.to_owned(), clock, last_read })
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// A transaction that has ended, as its producer reported it.
#[derive(Debug)]
struct Ended {
    id: SetId,
    count: u32,
    status: SetStatus,
    commit_called: Option<u64>,
    offset: Option<i64>,
    /// The set that was last read before it was ended.
    read: Option<SetId>,
    error: String,
}

/// A producer that has done its transactions.
#[derive(Debug)]
pub struct Owner {
    stream: u32,
    transactional_id: String,
    started: u64,
    producer: TransactionalProducer,
    ended: Vec<Ended>,
    pub fenced: bool,
}

/// Name of the id with this number, and of its group.
pub fn name_of(id: usize) -> String {
    format!("id-{id}")
}

/// The input's partition as the group of an id commits it: each id has a group.
pub fn offset_of(id: usize) -> TopicPartition {
    TopicPartition::new(name_of(id), 0)
}

/// Starts the owners of an id: each when the one before has started, or has not been able to. Returns
/// those that have started, when they have done their transactions.
pub async fn run_id(
    shared: Arc<Shared>,
    number: usize,
    consumer: Option<(Arc<Consumer>, TopicPartition)>,
) -> Vec<Owner> {
    let mut running = Vec::new();
    let IdPlan { exclusive, owners, .. } = &shared.plan.ids[number];
    for (index, plan) in (0..).zip(owners) {
        sleep(plan.start_after).await;
        let Some(producer) = start(&shared, number, *exclusive).await else { continue };
        let owner = Owner {
            stream: number as u32 * MAX_OWNERS + index,
            transactional_id: producer.transactional_id().to_owned(),
            started: shared.now(),
            producer,
            ended: Vec::new(),
            fenced: false,
        };
        // Owners that do not fence each other have no order that their offsets could have.
        let consumer = consumer.clone().filter(|_| index == 0 || !exclusive);
        running.push(tokio::spawn(owner.run(Arc::clone(&shared), plan.clone(), consumer)));
    }
    let mut done = Vec::new();
    for owner in running {
        done.push(owner.await.expect("an owner does not panic"));
    }
    done
}

async fn start(shared: &Shared, number: usize, exclusive: bool) -> Option<TransactionalProducer> {
    let Plan { linger, batch_size, transaction_timeout, keeps_epoch, .. } = shared.plan;
    for _ in 0..ATTEMPTS {
        let builder = shared.client.transactional_producer(name_of(number));
        let builder = builder.linger(linger).batch_size(batch_size).transaction_timeout(transaction_timeout);
        let builder = if exclusive { builder.exclusive() } else { builder };
        #[cfg(debug_assertions)]
        let builder = if keeps_epoch { builder.keep_epoch() } else { builder };
        assert!(!keeps_epoch || cfg!(debug_assertions), "the mutation is not in this build");
        if let Ok(producer) = builder.start().await {
            return Some(producer);
        }
    }
    None
}

impl Owner {
    async fn run(
        mut self,
        shared: Arc<Shared>,
        plan: OwnerPlan,
        consumer: Option<(Arc<Consumer>, TopicPartition)>,
    ) -> Self {
        for (sequence, transaction) in (0..).zip(&plan.transactions) {
            let id = SetId { stream: self.stream, sequence };
            let consumer = consumer.as_ref().filter(|_| transaction.offset);
            let mut attempts = 1;
            let can_go_on = loop {
                match self.run_one(&shared, id, transaction, consumer).await {
                    Err(TransactionAction::Abort) if attempts < ATTEMPTS => attempts += 1,
                    Err(action) => {
                        self.fenced |= action == TransactionAction::Fenced;
                        break false;
                    }
                    // Not known even after a wait for the outcome.
                    Ok(()) => break !self.is_unknown(),
                }
            };
            if !can_go_on {
                break;
            }
        }
        self
    }

    /// Runs a transaction; returns the action after the error if it can't begin.
    async fn run_one(
        &mut self,
        shared: &Shared,
        id: SetId,
        plan: &TransactionPlan,
        consumer: Option<&(Arc<Consumer>, TopicPartition)>,
    ) -> Result<(), TransactionAction> {
        let mut transaction = self.producer.begin().await.map_err(|e| e.action())?;
        let mut ended = Ended {
            id,
            count: plan.records.len() as u32,
            status: SetStatus::Unknown,
            commit_called: None,
            offset: None,
            read: None,
            error: String::new(),
        };
        send_all(shared, &transaction, id, plan).await;
        if let Some((consumer, partition)) = consumer {
            if let Ok(metadata) = consumer.group_metadata() {
                let offset = shared.now() as i64;
                transaction.send_offsets(&metadata, [(partition.clone(), offset)]).expect("it is not negative");
                ended.offset = Some(offset);
            }
        }
        sleep(plan.pause).await;
        ended.read = *shared.last_read.lock().unwrap();
        if matches!(plan.end, End::Commit | End::CancelledCommit(_)) {
            ended.commit_called = Some(shared.now());
        }
        let result = match plan.end {
            End::Commit => Some(transaction.commit().await),
            End::CancelledCommit(after) => timeout(after, transaction.commit()).await.ok(),
            End::Abort => {
                _ = transaction.abort().await;
                None
            }
            End::Drop => {
                drop(transaction);
                None
            }
        };
        if ended.commit_called.is_none() {
            ended.status = SetStatus::Aborted;
        } else if let Some(result) = result {
            ended.status = SetStatus::of(&result);
            ended.error = result.err().map_or(String::new(), |e| e.to_string());
        }
        self.ended.push(ended);
        self.resolve().await;
        Ok(())
    }

    /// Waits for the outcome of the last transaction if it is not known.
    pub async fn resolve(&mut self) {
        let Some(last) = self.ended.last_mut().filter(|last| last.status == SetStatus::Unknown) else { return };
        match self.producer.outcome().await {
            Some(Ok(TransactionOutcome::Committed)) => last.status = SetStatus::Committed,
            Some(Ok(_)) => last.status = SetStatus::Aborted,
            Some(Err(e)) => {
                last.status = SetStatus::of(&Err(e.clone()));
                last.error = e.to_string();
            }
            None => {}
        }
    }

    /// Returns whether the last transaction's end is not known.
    fn is_unknown(&self) -> bool {
        self.ended.last().is_some_and(|last| last.status == SetStatus::Unknown)
    }

    /// Closes the producer, and adds what it has reported.
    pub async fn close(self, history: &mut TransactionHistory, within: Duration) -> Result<(), ailurus::Error> {
        history.owner(self.stream, &self.transactional_id, self.started);
        for ended in self.ended {
            let Ended { id, count, status, commit_called, offset, read, error } = ended;
            let set = history.set(id, status, count).error(error);
            if let Some(at) = commit_called {
                set.commit_called(at);
            }
            if let Some(offset) = offset {
                set.offset(&offset_of((self.stream / MAX_OWNERS) as usize), offset);
            }
            if let Some(read) = read {
                history.read_before(id, read);
            }
        }
        self.producer.close(within).await
    }
}

/// Sends the records. A failed one makes the commit fail, too.
async fn send_all(shared: &Shared, transaction: &Transaction<'_>, set: SetId, plan: &TransactionPlan) {
    let count = plan.records.len() as u32;
    let mut releases = plan.releases;
    for (index, &partition) in (0..).zip(&plan.records) {
        let value = OutputId { set, lane: 0, attempt: 0, index, count }.value(plan.size);
        let record = ProducerRecord::to(&*shared.topic).partition(partition).value(&value);
        let Ok(delivery) = transaction.send(record).await else { continue };
        if (plan.one_by_one || releases) && delivery.await.is_ok() && std::mem::take(&mut releases) {
            shared.broker.release_held().await;
        }
    }
}
