//! Names of the metrics of a registry.
//!
//! OpenTelemetry's conventions for messaging give names and labels where they have one, with
//! underscores for dots; everything else begins with `ailurus_`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ailurus::metrics::Histogram;
use parking_lot::Mutex;

use crate::registry::{
    ApiMetrics, ByError, GroupMetrics, GroupTopicMetrics, HoldMetrics, PartitionMetrics, Registry, TopicMetrics,
    known_offset,
};
use crate::snapshot::{Family, Kind, MetricsSnapshot, Sample, Unit, Value};

const SYSTEM: (&str, &str) = ("messaging_system", "kafka");
const OPERATION: &str = "messaging_operation_name";
const DESTINATION: &str = "messaging_destination_name";
const GROUP: &str = "messaging_consumer_group_name";
const ERROR: &str = "error_type";

type Labels<'a> = &'a [(&'static str, &'a str)];

impl Registry {
    /// Returns the counts so far and the current gauges.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let mut out = Families::default();
        conventions(self, &mut out);
        producers(self, &mut out);
        transactions(self, &mut out);
        requests(self, &mut out);
        connections(self, &mut out);
        groups(self, &mut out);
        fetching(self, &mut out);
        partitions(self, &mut out);
        handlers(self, &mut out);
        let errors = "Errors that a part of the client handled or reported to the application, by kind.";
        out.counter("ailurus_errors_total", None, errors, |add| {
            for (part, errors) in self.failures.all() {
                by_error(add, &[("part", part)], &errors, counter_value);
            }
        });
        MetricsSnapshot { families: out.0 }
    }
}

#[derive(Default)]
struct Families(Vec<Family>);

/// Collects the samples of a metric.
#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn push(&mut self, labels: Labels<'_>, value: Value) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.0.push(Sample { labels, value });
    }
}

impl Families {
    fn family(
        &mut self,
        kind: Kind,
        name: &'static str,
        unit: Option<Unit>,
        help: &'static str,
        fill: impl FnOnce(&mut Samples),
    ) {
        let mut samples = Samples::default();
        fill(&mut samples);
        self.0.push(Family { name, help, kind, unit, samples: samples.0 });
    }

    fn counter(&mut self, name: &'static str, unit: Option<Unit>, help: &'static str, fill: impl FnOnce(&mut Samples)) {
        self.family(Kind::Counter, name, unit, help, fill);
    }

    fn gauge(&mut self, name: &'static str, unit: Option<Unit>, help: &'static str, fill: impl FnOnce(&mut Samples)) {
        self.family(Kind::Gauge, name, unit, help, fill);
    }

    fn histogram(&mut self, name: &'static str, help: &'static str, fill: impl FnOnce(&mut Samples)) {
        self.family(Kind::Histogram, name, Some(Unit::Seconds), help, fill);
    }
}

fn counter_value(n: &AtomicU64) -> Value {
    Value::Count(n.load(Ordering::Relaxed))
}

fn gauge_value(n: &AtomicI64) -> Value {
    Value::Number(n.load(Ordering::Relaxed) as f64)
}

fn seconds(n: &Mutex<Duration>) -> Value {
    Value::Number(n.lock().as_secs_f64())
}

fn histogram_value(n: &Mutex<Histogram>) -> Value {
    Value::Histogram(n.lock().clone())
}

/// Adds one sample per error, and one without the label for success.
fn by_error<V: Default>(add: &mut Samples, labels: Labels<'_>, values: &ByError<V>, value: fn(&V) -> Value) {
    for (error, n) in values.all() {
        let mut labels = labels.to_vec();
        if !error.is_empty() {
            labels.push((ERROR, &error));
        }
        add.push(&labels, value(&n));
    }
}

/// Returns the compression ratio; none without data.
fn ratio(uncompressed: &AtomicU64, bytes: &AtomicU64) -> Option<Value> {
    let (uncompressed, bytes) = (uncompressed.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    (bytes > 0).then(|| Value::Number(uncompressed as f64 / bytes as f64))
}

fn each_group_topic(registry: &Registry, mut f: impl FnMut(&str, &str, &GroupTopicMetrics)) {
    for (group, of_group) in registry.groups.all() {
        for (topic, read) in of_group.topics.all() {
            f(&group, &topic, &read);
        }
    }
}

fn conventions(registry: &Registry, out: &mut Families) {
    let help = "Records acknowledged, or failed (error_type).";
    out.counter("messaging_client_sent_messages_total", None, help, |add| {
        for (topic, produced) in registry.topics.all() {
            let labels = [SYSTEM, (OPERATION, "send"), (DESTINATION, &*topic)];
            by_error(add, &labels, &produced.records, counter_value);
        }
    });
    let help = "Records returned to the application or its handlers.";
    out.counter("messaging_client_consumed_messages_total", None, help, |add| {
        each_group_topic(registry, |group, topic, read| {
            add.push(
                &[SYSTEM, (OPERATION, "poll"), (GROUP, group), (DESTINATION, topic)],
                counter_value(&read.consumed),
            );
        });
    });
    let help = "Time from the first record of a batch to its acknowledgement (send); duration of fetch (poll) and commit requests.";
    out.histogram("messaging_client_operation_duration_seconds", help, |add| {
        for (topic, produced) in registry.topics.all() {
            let labels = [SYSTEM, (OPERATION, "send"), (DESTINATION, &*topic)];
            by_error(add, &labels, &produced.took, histogram_value);
        }
        by_error(add, &[SYSTEM, (OPERATION, "poll")], &registry.polls, histogram_value);
        by_error(add, &[SYSTEM, (OPERATION, "commit")], &registry.commits, histogram_value);
    });
    let help = "Duration of handler calls, failed ones with error_type=\"handler\".";
    out.histogram("messaging_process_duration_seconds", help, |add| {
        each_group_topic(registry, |group, topic, read| {
            let labels = [SYSTEM, (OPERATION, "process"), (GROUP, group), (DESTINATION, topic), (ERROR, "handler")];
            for (times, labels) in [(&read.done, &labels[..4]), (&read.failed, &labels[..])] {
                let times = times.lock().clone();
                if times.count() > 0 {
                    add.push(labels, Value::Histogram(times));
                }
            }
        });
    });
}

fn producers(registry: &Registry, out: &mut Families) {
    let topics = registry.topics.all();
    let each = |add: &mut Samples, value: fn(&TopicMetrics) -> Option<Value>| {
        for (topic, produced) in &topics {
            value(produced).into_iter().for_each(|value| add.push(&[("topic", topic)], value));
        }
    };
    let help = "Batches encoded.";
    out.counter("ailurus_producer_batches_total", None, help, |add| each(add, |p| Some(counter_value(&p.batches))));
    let help = "Size of encoded batches before compression.";
    out.counter("ailurus_producer_uncompressed_bytes_total", Some(Unit::Bytes), help, |add| {
        each(add, |p| Some(counter_value(&p.uncompressed)));
    });
    let help = "Size of encoded batches on the wire.";
    out.counter("ailurus_producer_sent_bytes_total", Some(Unit::Bytes), help, |add| {
        each(add, |p| Some(counter_value(&p.bytes)));
    });
    let help = "Uncompressed bytes per byte sent, since the start.";
    out.gauge("ailurus_producer_compression_ratio", None, help, |add| {
        each(add, |p| ratio(&p.uncompressed, &p.bytes));
    });
    out.counter("ailurus_producer_retries_total", None, "Batch retries, by error.", |add| {
        for (topic, produced) in &topics {
            by_error(add, &[("topic", topic)], &produced.retries, counter_value);
        }
    });
    let producers = &registry.producers;
    let help = "Buffer space of records that are buffered or in flight.";
    out.gauge("ailurus_producer_buffer_used_bytes", Some(Unit::Bytes), help, |add| {
        add.push(&[], gauge_value(&producers.used));
    });
    let help = "Buffer limit of all producers.";
    out.gauge("ailurus_producer_buffer_limit_bytes", Some(Unit::Bytes), help, |add| {
        add.push(&[], gauge_value(&producers.limit));
    });
    let help = "Records that waited for buffer space.";
    out.counter("ailurus_producer_buffer_waits_total", None, help, |add| {
        add.push(&[], counter_value(&producers.waits))
    });
    let help = "Total time that records waited for buffer space.";
    out.counter("ailurus_producer_buffer_wait_seconds_total", Some(Unit::Seconds), help, |add| {
        add.push(&[], seconds(&producers.waited));
    });
}

fn transactions(registry: &Registry, out: &mut Families) {
    const ID: &str = "transactional_id";
    let all = registry.transactions.all();
    let help = "Transactional producers by state.";
    out.gauge("ailurus_transactional_producers", None, help, |add| {
        for (id, transactions) in &all {
            let states = transactions.states.all();
            states.iter().for_each(|(state, n)| add.push(&[(ID, id), ("state", state)], gauge_value(n)));
        }
    });
    let help = "Time for which the oldest open transaction has been open; 0 if none is.";
    out.gauge("ailurus_transaction_open_seconds", Some(Unit::Seconds), help, |add| {
        all.iter().for_each(|(id, t)| add.push(&[(ID, id)], Value::Number(t.open_for().as_secs_f64())));
    });
    let help = "Transactions by outcome: committed, aborted, unknown, fenced or stopped, failed ones with error_type.";
    out.counter("ailurus_transactions_total", None, help, |add| {
        for (id, transactions) in &all {
            for (outcome, n) in transactions.ended.all() {
                by_error(add, &[(ID, id), ("outcome", outcome)], &n, counter_value);
            }
        }
    });
    let help = "Time from the call of commit to its confirmation.";
    out.histogram("ailurus_transaction_commit_duration_seconds", help, |add| {
        all.iter().for_each(|(id, t)| add.push(&[(ID, id)], histogram_value(&t.commits)));
    });
}

fn requests(registry: &Registry, out: &mut Families) {
    let brokers = registry.brokers.all();
    let each = |f: &mut dyn FnMut(Labels<'_>, &ApiMetrics)| {
        for (broker, of_broker) in &brokers {
            for (api, requests) in of_broker.apis.all() {
                f(&[("api", api), ("broker", broker)], &requests);
            }
        }
    };
    let help = "Time from submitting a request to its response.";
    out.histogram("ailurus_request_duration_seconds", help, |add| {
        each(&mut |labels, api| add.push(labels, histogram_value(&api.took)));
    });
    out.gauge("ailurus_requests_in_flight", None, "Requests in flight.", |add| {
        each(&mut |labels, api| add.push(labels, gauge_value(&api.in_flight)));
    });
    let help = "Requests without a response, or with one that could not be decoded.";
    out.counter("ailurus_request_errors_total", None, help, |add| {
        each(&mut |labels, api| by_error(add, labels, &api.errors, counter_value));
    });
    let help = "Throttle time by brokers whose quota was exceeded.";
    out.counter("ailurus_request_throttle_seconds_total", Some(Unit::Seconds), help, |add| {
        each(&mut |labels, api| add.push(labels, seconds(&api.throttled)));
    });
}

fn connections(registry: &Registry, out: &mut Families) {
    let brokers = registry.brokers.all();
    out.gauge("ailurus_connections", None, "Open connections.", |add| {
        brokers.iter().for_each(|(name, broker)| add.push(&[("broker", name)], gauge_value(&broker.connections)));
    });
    out.counter("ailurus_connections_opened_total", None, "Connections opened.", |add| {
        brokers.iter().for_each(|(name, broker)| add.push(&[("broker", name)], counter_value(&broker.opened)));
    });
    let help = "Failed connection attempts, by error.";
    out.counter("ailurus_connection_failures_total", None, help, |add| {
        brokers.iter().for_each(|(name, broker)| by_error(add, &[("broker", name)], &broker.failures, counter_value));
    });
    let help = "Reauthentications of connections, failed ones with error_type.";
    out.counter("ailurus_reauthentications_total", None, help, |add| {
        brokers.iter().for_each(|(name, broker)| {
            by_error(add, &[("broker", name)], &broker.reauthentications, counter_value);
        });
    });
}

fn groups(registry: &Registry, out: &mut Families) {
    let groups = registry.groups.all();
    let each = |add: &mut Samples, value: fn(&GroupMetrics) -> Value| {
        groups.iter().for_each(|(name, group)| add.push(&[("group", name)], value(group)));
    };
    let help = "Consumers of this process by their state in the group: joining or member.";
    out.gauge("ailurus_consumer_members", None, help, |add| {
        for (name, group) in &groups {
            for (state, members) in group.members.all() {
                add.push(&[("group", name), ("state", state)], gauge_value(&members));
            }
        }
    });
    out.gauge("ailurus_consumer_assigned_partitions", None, "Partitions assigned to them.", |add| {
        each(add, |group| gauge_value(&group.assigned));
    });
    let help = "Partitions lost without a revocation.";
    out.counter("ailurus_consumer_lost_partitions_total", None, help, |add| {
        each(add, |group| counter_value(&group.lost))
    });
    let help = "Duration of rebalances, from the time a member learns of one to its assignment.";
    out.histogram("ailurus_consumer_rebalance_duration_seconds", help, |add| {
        each(add, |group| histogram_value(&group.rebalances));
    });
    out.counter("ailurus_consumer_commits_total", None, "Commits, failed ones with error_type.", |add| {
        groups.iter().for_each(|(name, group)| by_error(add, &[("group", name)], &group.commits, counter_value));
    });
    let help = "Duration of the transactions of exactly-once pipelines, aborted ones with error_type.";
    out.histogram("ailurus_pipeline_transaction_duration_seconds", help, |add| {
        groups.iter().for_each(|(name, group)| by_error(add, &[("group", name)], &group.transactions, histogram_value));
    });
    let used: Vec<_> = groups.iter().filter(|(_, group)| !group.transactions.all().is_empty()).collect();
    let counter = |add: &mut Samples, value: fn(&GroupMetrics) -> &AtomicU64| {
        used.iter().for_each(|(name, group)| add.push(&[("group", name)], counter_value(value(group))));
    };
    let help = "Records whose outputs and offsets were committed in transactions.";
    out.counter("ailurus_pipeline_records_total", None, help, |add| counter(add, |g| &g.transaction_records));
    let help = "Size of their outputs in memory.";
    out.counter("ailurus_pipeline_output_bytes_total", Some(Unit::Bytes), help, |add| {
        counter(add, |g| &g.transaction_bytes)
    });
}

fn fetching(registry: &Registry, out: &mut Families) {
    let each = |add: &mut Samples, value: fn(&GroupTopicMetrics) -> Option<Value>| {
        each_group_topic(registry, |group, topic, read| {
            value(read).into_iter().for_each(|value| add.push(&[("group", group), ("topic", topic)], value));
        });
    };
    let help = "Batches fetched and decoded.";
    out.counter("ailurus_consumer_fetched_batches_total", None, help, |add| {
        each(add, |r| Some(counter_value(&r.batches)))
    });
    let help = "Records fetched.";
    out.counter("ailurus_consumer_fetched_records_total", None, help, |add| {
        each(add, |r| Some(counter_value(&r.fetched)))
    });
    let help = "Size of fetched batches on the wire.";
    out.counter("ailurus_consumer_fetched_bytes_total", Some(Unit::Bytes), help, |add| {
        each(add, |r| Some(counter_value(&r.bytes)));
    });
    let help = "Size of fetched batches after decompression.";
    out.counter("ailurus_consumer_uncompressed_bytes_total", Some(Unit::Bytes), help, |add| {
        each(add, |r| Some(counter_value(&r.uncompressed)));
    });
    let help = "Uncompressed bytes per byte fetched, since the start.";
    out.gauge("ailurus_consumer_compression_ratio", None, help, |add| {
        each(add, |r| ratio(&r.uncompressed, &r.bytes));
    });
}

fn partitions(registry: &Registry, out: &mut Families) {
    let each = |add: &mut Samples, value: fn(&PartitionMetrics) -> Option<i64>| {
        each_group_topic(registry, |group, topic, read| {
            for (partition, p) in read.partitions.all() {
                let labels = [("group", group), ("topic", topic), ("partition", &*partition.to_string())];
                value(&p).into_iter().for_each(|value| add.push(&labels, Value::Number(value as f64)));
            }
        });
    };
    let help = "Position: offset after the last record returned to the application or its handlers.";
    out.gauge("ailurus_consumer_position_offset", None, help, |add| each(add, |p| known_offset(&p.position)));
    let help = "Committed offset of the group.";
    out.gauge("ailurus_consumer_committed_offset", None, help, |add| each(add, |p| known_offset(&p.committed)));
    let help = "End offset (high watermark or last stable offset), as of the last fetch.";
    out.gauge("ailurus_consumer_end_offset", None, help, |add| each(add, |p| known_offset(&p.end)));
    let help = "Records before the end offset that are not handled, or not returned where there are no handlers.";
    out.gauge("ailurus_consumer_lag_records", None, help, |add| each(add, PartitionMetrics::lag));
}

/// Dependencies of handlers that were or are down.
fn holds(registry: &Registry, out: &mut Families) {
    let groups = registry.groups.all();
    let each = |add: &mut Samples, value: fn(&HoldMetrics) -> Value| {
        for (group, metrics) in &groups {
            for (dependency, hold) in metrics.holds.all() {
                add.push(&[("group", group), ("dependency", &dependency)], value(&hold));
            }
        }
    };
    let help = "Dependencies of handlers that are down, for which subscriptions wait.";
    out.gauge("ailurus_processor_open_holds", None, help, |add| each(add, |hold| gauge_value(&hold.open)));
    let help = "Times that a subscription began to wait for a dependency of its handler.";
    out.counter("ailurus_processor_holds_total", None, help, |add| each(add, |hold| counter_value(&hold.started)));
    let help = "Time for which subscriptions waited for dependencies, once these are back.";
    out.counter("ailurus_processor_held_seconds_total", Some(Unit::Seconds), help, |add| {
        each(add, |hold| Value::Number(hold.held_for.lock().as_secs_f64()));
    });
}

fn handlers(registry: &Registry, out: &mut Families) {
    let each = |add: &mut Samples, value: fn(&GroupTopicMetrics) -> &AtomicU64| {
        each_group_topic(registry, |group, topic, read| {
            add.push(&[("group", group), ("topic", topic)], counter_value(value(read)));
        });
    };
    let help = "Failed handler attempts.";
    out.counter("ailurus_processor_failures_total", None, help, |add| each(add, |r| &r.attempts_failed));
    let help = "Failed handler attempts whose record is retried.";
    out.counter("ailurus_processor_retries_total", None, help, |add| each(add, |r| &r.retries));
    let help = "Records written to a dead-letter topic.";
    out.counter("ailurus_processor_dead_letters_total", None, help, |add| each(add, |r| &r.dead_letters));
    let help = "Failed records that were skipped.";
    out.counter("ailurus_processor_skipped_total", None, help, |add| each(add, |r| &r.skipped));
    holds(registry, out);
    let help = "Limit of records (or batches) in handlers at a time.";
    out.gauge("ailurus_processor_concurrency_limit", None, help, |add| {
        for (name, group) in registry.groups.all() {
            // 0 is a consumer without handlers, or a subscription that has ended.
            if group.concurrency.load(Ordering::Relaxed) > 0 {
                add.push(&[("group", &name)], gauge_value(&group.concurrency));
            }
        }
    });
    let help = "Partitions that are not read on because they are paused, by reason: control, breaker or delay.";
    out.gauge("ailurus_processor_paused_partitions", None, help, |add| {
        each_group_topic(registry, |group, topic, read| {
            for (reason, paused) in read.paused.all() {
                add.push(&[("group", group), ("topic", topic), ("reason", reason)], gauge_value(&paused));
            }
        });
    });
    let each = |add: &mut Samples, value: fn(&PartitionMetrics) -> &AtomicU64| {
        each_group_topic(registry, |group, topic, read| {
            for (partition, p) in read.partitions.all() {
                // Of a consumer with handlers.
                if known_offset(&p.handled).is_some() {
                    let labels = [("group", group), ("topic", topic), ("partition", &*partition.to_string())];
                    add.push(&labels, Value::Number(value(&p).load(Ordering::Relaxed) as f64));
                }
            }
        });
    };
    let help = "Records in a handler.";
    out.gauge("ailurus_processor_in_hand_records", None, help, |add| each(add, |p| &p.in_flight));
    let help = "Records queued for a handler.";
    out.gauge("ailurus_processor_waiting_records", None, help, |add| each(add, |p| &p.waiting));
    let help = "Failed records that wait for a retry, or to be written to the dead-letter topic.";
    out.gauge("ailurus_processor_parked_records", None, help, |add| each(add, |p| &p.parked));
    let help = "Keys (ordering scopes) blocked by a failed record.";
    out.gauge("ailurus_processor_parked_keys", None, help, |add| each(add, |p| &p.parked_keys));
}
