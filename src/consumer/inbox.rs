//! What waits for the program: news of the assignment first, then records.
//!
//! News that has become pointless before the program saw it is taken back, so that this queue has a bound of its own whatever
//! the group does: an assignment that ends before it was seen was never there, and a revocation that is over before it was
//! seen is a loss.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{ConsumerEvent, Records, Revocation};
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// Between the tasks of a consumer and its front.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    news: VecDeque<News>,
    /// Trouble with single partitions; each reports once, so there are at most as many as partitions.
    errors: VecDeque<Error>,
    records: VecDeque<Records>,
    /// Why nothing comes any more.
    ended: Option<Error>,
    /// The assignment that records may be of; none while there is none.
    current: Option<u64>,
    /// The last assignment the program has been told of.
    seen: u64,
    /// The offset behind what the program has been given, or where its first fetch starts.
    positions: HashMap<TopicPartition, i64>,
}

#[derive(Debug)]
enum News {
    Assigned { epoch: u64, partitions: Vec<TopicPartition> },
    Revoked { partitions: Vec<TopicPartition>, deadline: Instant, drained: CancellationToken },
    Lost(Vec<TopicPartition>),
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new assignment: from now on records of this epoch are taken, and of no other.
    pub(crate) fn assigned(&self, epoch: u64, partitions: Vec<TopicPartition>) {
        let mut s = self.lock();
        s.current = Some(epoch);
        s.news.push_back(News::Assigned { epoch, partitions });
        self.ready.notify_one();
    }

    /// The assignment is about to end; `drained` is cancelled when the program has finished. Records not yet delivered are
    /// discarded: whoever gets the partition reads them.
    pub(crate) fn revoke(&self, partitions: Vec<TopicPartition>, deadline: Instant, drained: CancellationToken) {
        let mut s = self.lock();
        s.discard();
        if s.unseen_assignment() {
            drained.cancel();
        } else {
            s.news.push_back(News::Revoked { partitions, deadline, drained });
            self.ready.notify_one();
        }
    }

    /// The drain is over, whether the program has seen the revocation or not.
    pub(crate) fn gave_up(&self) {
        let mut s = self.lock();
        s.discard();
        s.unseen_assignment();
        if let Some(partitions) = s.unseen_revocation() {
            s.news.push_back(News::Lost(partitions));
        }
    }

    /// The assignment has ended without a drain.
    pub(crate) fn lost(&self, partitions: Vec<TopicPartition>) {
        let mut s = self.lock();
        s.discard();
        if s.unseen_assignment() {
            return;
        }
        s.unseen_revocation();
        s.news.push_back(News::Lost(partitions));
        self.ready.notify_one();
    }

    /// Records of an assignment; those of an old one are dropped.
    pub(crate) fn records(&self, epoch: u64, records: Records) {
        let mut s = self.lock();
        if s.current == Some(epoch) {
            s.records.push_back(records);
            self.ready.notify_one();
        }
    }

    /// Trouble with a partition of an assignment, which goes on.
    pub(crate) fn trouble(&self, epoch: u64, error: Error) {
        let mut s = self.lock();
        if s.current == Some(epoch) {
            s.errors.push_back(error);
            self.ready.notify_one();
        }
    }

    /// Where reading a partition starts.
    pub(crate) fn starts(&self, epoch: u64, partition: TopicPartition, offset: i64) {
        let mut s = self.lock();
        if s.current == Some(epoch) {
            s.positions.insert(partition, offset);
        }
    }

    /// Nothing comes any more but what is here already.
    pub(crate) fn end(&self, why: Error) {
        let mut s = self.lock();
        s.discard();
        s.ended.get_or_insert(why);
        self.ready.notify_one();
    }

    /// The next event, if there is one.
    pub(crate) fn pop(&self) -> Option<Result<ConsumerEvent>> {
        let mut s = self.lock();
        if let Some(news) = s.news.pop_front() {
            return Some(Ok(match news {
                News::Assigned { epoch, partitions } => {
                    s.seen = epoch;
                    ConsumerEvent::Assigned(partitions)
                }
                News::Revoked { partitions, deadline, drained } => {
                    ConsumerEvent::Revoked(Revocation { partitions, deadline, _drained: drained.drop_guard() })
                }
                News::Lost(partitions) => ConsumerEvent::Lost(partitions),
            }));
        }
        if let Some(e) = &s.ended {
            return Some(Err(e.clone()));
        }
        if let Some(e) = s.errors.pop_front() {
            return Some(Err(e));
        }
        let records = s.records.pop_front()?;
        let partition = TopicPartition { topic: records.topic.clone(), partition: records.partition };
        s.positions.insert(partition, records.next_offset);
        Some(Ok(ConsumerEvent::Records(records)))
    }

    /// Resolves when there may be something. For one waiter.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// The assignment in whose name the program acts.
    pub(crate) fn seen(&self) -> u64 {
        self.lock().seen
    }

    pub(crate) fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.lock().positions.get(partition).copied()
    }
}

impl State {
    fn discard(&mut self) {
        self.current = None;
        self.records.clear();
        self.errors.clear();
        self.positions.clear();
    }

    /// Takes back an assignment that the program has not seen; whether there was one.
    fn unseen_assignment(&mut self) -> bool {
        let unseen = matches!(self.news.back(), Some(News::Assigned { .. }));
        if unseen {
            self.news.pop_back();
        }
        unseen
    }

    fn unseen_revocation(&mut self) -> Option<Vec<TopicPartition>> {
        match self.news.pop_back()? {
            News::Revoked { partitions, .. } => Some(partitions),
            other => {
                self.news.push_back(other);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use std::time::Duration;

    fn t(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    fn some(inbox: &Inbox, epoch: u64, next_offset: i64) {
        let records = Records {
            topic: "t".into(),
            partition: 0,
            records: vec![],
            next_offset,
            high_watermark: next_offset,
            _held: None,
        };
        inbox.records(epoch, records);
    }

    /// What the program sees, in short words.
    fn all(inbox: &Inbox) -> Vec<String> {
        std::iter::from_fn(|| inbox.pop())
            .take(10)
            .map(|e| match e {
                Ok(ConsumerEvent::Assigned(p)) => format!("assigned {}", p.len()),
                Ok(ConsumerEvent::Revoked(r)) => format!("revoked {}", r.partitions.len()),
                Ok(ConsumerEvent::Lost(p)) => format!("lost {}", p.len()),
                Ok(ConsumerEvent::Records(r)) => format!("records {}", r.next_offset),
                Err(e) => e.to_string(),
            })
            .collect()
    }

    fn revoke(inbox: &Inbox) -> CancellationToken {
        let drained = CancellationToken::new();
        inbox.revoke(vec![t(0)], Instant::now() + Duration::from_secs(1), drained.clone());
        drained
    }

    #[test]
    fn records_come_behind_their_assignment_and_never_of_an_old_one() {
        let inbox = Inbox::default();
        inbox.assigned(1, vec![t(0)]);
        some(&inbox, 1, 5);
        some(&inbox, 0, 99);
        assert_eq!(all(&inbox), ["assigned 1", "records 5"]);
        assert_eq!((inbox.seen(), inbox.position(&t(0))), (1, Some(5)));
        some(&inbox, 1, 6);
        let drained = revoke(&inbox);
        some(&inbox, 1, 7);
        let Some(Ok(ConsumerEvent::Revoked(revocation))) = inbox.pop() else { panic!("not revoked") };
        assert!(inbox.pop().is_none(), "what was not delivered is discarded");
        assert!(!drained.is_cancelled());
        drop(revocation);
        assert!(drained.is_cancelled());
        inbox.gave_up();
        assert!(inbox.pop().is_none());
        assert_eq!(inbox.position(&t(0)), None);
    }

    #[test]
    fn an_assignment_that_no_one_saw_was_never_there() {
        let inbox = Inbox::default();
        inbox.assigned(1, vec![t(0)]);
        assert!(revoke(&inbox).is_cancelled(), "there is nothing to drain");
        inbox.assigned(2, vec![t(0)]);
        inbox.lost(vec![t(0)]);
        assert_eq!(all(&inbox), Vec::<String>::new());
    }

    #[test]
    fn a_revocation_that_no_one_saw_in_time_is_a_loss() {
        let inbox = Inbox::default();
        inbox.assigned(1, vec![t(0)]);
        all(&inbox);
        revoke(&inbox);
        inbox.gave_up();
        for epoch in 2..50 {
            inbox.assigned(epoch, vec![t(0)]);
            revoke(&inbox);
            inbox.gave_up();
        }
        inbox.assigned(50, vec![t(0), t(1)]);
        assert_eq!(all(&inbox), ["lost 1", "assigned 2"]);

        revoke(&inbox);
        inbox.lost(vec![t(0)]);
        assert_eq!(all(&inbox), ["lost 1"]);
    }

    #[test]
    fn the_end_comes_behind_the_news_and_stays() {
        let inbox = Inbox::default();
        inbox.assigned(1, vec![]);
        some(&inbox, 1, 5);
        inbox.trouble(1, Error::new(crate::ErrorKind::Corrupt, "damaged"));
        assert_eq!(all(&inbox), ["assigned 0", "damaged", "records 5"]);
        inbox.lost(vec![t(0)]);
        inbox.end(Error::new(crate::ErrorKind::Closed, "closed"));
        assert_eq!(all(&inbox)[..3], ["lost 1", "closed", "closed"]);
    }
}
