//! The history of every event, and the verdict. It has no I/O and no clock: times are arguments.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

/// A call of a handler with an event.
#[derive(Debug, Clone, Copy)]
pub struct Handling {
    /// Number of the event in the plan.
    pub event: usize,
    /// Member that handled it.
    pub member: u32,
    /// Partition; those of different topics have different numbers.
    pub partition: u32,
    /// Offset of the record.
    pub offset: i64,
    /// Time since the start.
    pub at: Duration,
}

/// The history of a run: each event from its plan to its handling.
#[derive(Debug)]
pub struct History {
    events: Vec<Event>,
    /// Greatest position in the sequence of each key that has been handled.
    keys: Vec<Option<u32>>,
    tenures: HashMap<u32, Tenure>,
    /// Number of times that a member went back in a partition, by member and partition.
    replays: HashMap<(u32, u32), u64>,
    first_sent: Option<Duration>,
    last_handled: Option<Duration>,
    acknowledged: u64,
    handled: u64,
    duplicates: u64,
    out_of_order: u64,
}

#[derive(Debug)]
struct Event {
    key: u32,
    place: u32,
    sent: Duration,
    acknowledged: bool,
    /// Time from sending to the first handling.
    latency: Option<Duration>,
}

/// The member that has a partition, and its last offset.
#[derive(Debug)]
struct Tenure {
    member: u32,
    offset: i64,
}

/// The verdict on a history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Number of events that the brokers acknowledged.
    pub published: u64,
    /// Number of different events that were handled.
    pub handled: u64,
    /// Number of events that were published and not handled.
    pub lost: u64,
    /// Number of handlings of an event beyond its first.
    pub duplicates: u64,
    /// Number of events first handled after a later one of their key, and of steps back while a member had a partition.
    pub out_of_order: u64,
    /// Handled events per second, from the first sent to the last handled.
    pub throughput_per_s: f64,
    /// Median of the time from sending to handling, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of that time.
    pub p99_ms: f64,
}

impl History {
    /// Takes a key and a position in its key's sequence for each event; both count from 0.
    pub fn new(events: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let event = |(key, place)| Event { key, place, sent: Duration::ZERO, acknowledged: false, latency: None };
        let events: Vec<_> = events.into_iter().map(event).collect();
        let keys = events.iter().map(|e| e.key as usize + 1).max().unwrap_or(0);
        Self {
            events,
            keys: vec![None; keys],
            tenures: HashMap::new(),
            replays: HashMap::new(),
            first_sent: None,
            last_handled: None,
            acknowledged: 0,
            handled: 0,
            duplicates: 0,
            out_of_order: 0,
        }
    }

    /// Notes that the event is about to be sent.
    pub fn sent(&mut self, event: usize, at: Duration) {
        self.first_sent.get_or_insert(at);
        self.events[event].sent = at;
    }

    /// Notes that the brokers acknowledged the event.
    pub fn acknowledged(&mut self, event: usize) {
        self.events[event].acknowledged = true;
        self.acknowledged += 1;
    }

    /// Returns the number of acknowledged events.
    pub fn acknowledged_so_far(&self) -> u64 {
        self.acknowledged
    }

    /// Returns the time of the first event.
    pub fn begun(&self) -> Option<Duration> {
        self.first_sent
    }

    /// Returns the number of different events handled so far.
    pub fn handled_so_far(&self) -> u64 {
        self.handled
    }

    /// Notes that a handler is done with an event.
    pub fn handled(&mut self, h: Handling) {
        let event = &mut self.events[h.event];
        let first = event.latency.is_none();
        let mut in_order = true;
        if first {
            let greatest = &mut self.keys[event.key as usize];
            in_order = greatest.is_none_or(|g| event.place > g);
            *greatest = (*greatest).max(Some(event.place));
            event.latency = Some(h.at.saturating_sub(event.sent));
            self.handled += 1;
            self.last_handled = Some(h.at);
        } else {
            self.duplicates += 1;
        }
        let tenure = self.tenures.entry(h.partition).or_insert(Tenure { member: h.member, offset: -1 });
        if tenure.member == h.member && h.offset <= tenure.offset {
            // A step back in the log. Events handled before may come again after the partition was revoked and assigned again;
            // others are out of order.
            if first {
                in_order = false;
            } else {
                *self.replays.entry((h.member, h.partition)).or_default() += 1;
            }
        }
        *tenure = Tenure { member: h.member, offset: h.offset };
        self.out_of_order += u64::from(!in_order);
    }

    /// Returns the verdict. A member may step back as often as partitions were assigned to it, which `assignments` returns.
    pub fn verdict(&self, assignments: impl Fn(u32) -> u64) -> Verdict {
        let excess = |(&(member, _), &times): (&(u32, u32), &u64)| times.saturating_sub(assignments(member));
        let out_of_order = self.out_of_order + self.replays.iter().map(excess).sum::<u64>();
        let lost = self.events.iter().filter(|e| e.acknowledged && e.latency.is_none()).count();
        let span = self.last_handled.unwrap_or_default().saturating_sub(self.first_sent.unwrap_or_default());
        let mut latencies: Vec<_> = self.events.iter().filter_map(|e| e.latency).collect();
        latencies.sort_unstable();
        Verdict {
            published: self.acknowledged,
            handled: self.handled,
            lost: lost as u64,
            duplicates: self.duplicates,
            out_of_order,
            throughput_per_s: per_second(self.handled, span),
            p50_ms: percentile(&latencies, 50),
            p99_ms: percentile(&latencies, 99),
        }
    }
}

/// Returns the rate per second, to one decimal.
pub fn per_second(n: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { (n as f64 / span.as_secs_f64() * 10.0).round() / 10.0 }
}

/// Returns a percentile of a sorted list, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |d| d.as_micros() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two keys with three events each, interleaved: event i has key i % 2 and place i / 2; offset i of partition 0.
    fn history() -> History {
        let mut history = History::new((0..6).map(|i| (i % 2, i / 2)));
        for event in 0..6 {
            history.sent(event, Duration::from_millis(event as u64));
            history.acknowledged(event);
        }
        history
    }

    fn handle(history: &mut History, member: u32, events: &[usize]) {
        for &event in events {
            let at = Duration::from_millis(10 + event as u64);
            history.handled(Handling { event, member, partition: 0, offset: event as i64, at });
        }
    }

    fn counts(history: &History) -> (u64, u64, u64, u64) {
        let v = history.verdict(|_| 1);
        (v.handled, v.lost, v.duplicates, v.out_of_order)
    }

    #[test]
    fn a_clean_run_has_nothing_to_complain_of() {
        let mut history = history();
        handle(&mut history, 1, &[0, 1, 2, 3, 4, 5]);
        let v = history.verdict(|_| 1);
        assert_eq!((v.published, v.handled, v.lost, v.duplicates, v.out_of_order), (6, 6, 0, 0, 0));
        assert_eq!((v.p50_ms, v.p99_ms), (10.0, 10.0));
        assert_eq!(v.throughput_per_s, 400.0); // 6 events from 0 ms to 15 ms
    }

    #[test]
    fn a_planted_loss_is_found() {
        let mut history = history();
        handle(&mut history, 1, &[0, 1, 2, 4, 5]);
        assert_eq!(counts(&history), (5, 1, 0, 0));
    }

    #[test]
    fn an_event_that_was_not_acknowledged_can_not_be_lost() {
        let mut history = History::new([(0, 0), (0, 1)]);
        history.acknowledged(0);
        handle(&mut history, 1, &[0]);
        assert_eq!(history.verdict(|_| 1).published, 1);
        assert_eq!(counts(&history), (1, 0, 0, 0));
    }

    #[test]
    fn a_replay_by_the_next_owner_is_duplicates_in_order() {
        let mut history = history();
        handle(&mut history, 1, &[0, 1, 2, 3]);
        handle(&mut history, 2, &[1, 2, 3, 4, 5]);
        assert_eq!(counts(&history), (6, 0, 3, 0));
    }

    #[test]
    fn a_swap_inside_a_key_is_out_of_order() {
        let mut history = history();
        handle(&mut history, 1, &[0, 1, 4, 2, 3, 5]); // 2 after 4: same key
        assert_eq!(counts(&history), (6, 0, 0, 1));
    }

    #[test]
    fn a_swap_across_owners_is_out_of_order_by_the_first_handling() {
        let mut history = history();
        handle(&mut history, 1, &[0, 1, 4]);
        handle(&mut history, 2, &[2, 3, 4, 5]);
        assert_eq!(counts(&history), (6, 0, 1, 1));
    }

    #[test]
    fn a_step_back_inside_a_tenure_is_out_of_order_even_across_keys() {
        let mut history = history();
        handle(&mut history, 1, &[1, 0, 2, 3, 4, 5]); // different keys, one partition
        assert_eq!(counts(&history), (6, 0, 0, 1));
    }

    #[test]
    fn replays_need_an_assignment_each() {
        let mut history = history();
        handle(&mut history, 1, &[0, 1, 2, 1, 2, 1, 2, 3, 4, 5]);
        assert_eq!(history.verdict(|_| 2).out_of_order, 0);
        assert_eq!(history.verdict(|_| 1).out_of_order, 1);
        assert_eq!(history.verdict(|_| 1).duplicates, 4);
    }

    #[test]
    fn partitions_do_not_mix() {
        let mut history = History::new([(0, 0), (1, 0)]);
        for (event, partition, offset) in [(0, 0, 9), (1, 1, 3)] {
            history.handled(Handling { event, member: 1, partition, offset, at: Duration::ZERO });
        }
        assert_eq!(counts(&history), (2, 0, 0, 0));
    }
}
