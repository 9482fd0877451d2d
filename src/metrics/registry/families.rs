//! The names under which a registry shows what it has counted.
//!
//! Names and labels of OpenTelemetry's conventions for messaging are used where they have one for it, with underscores for
//! dots; everything else begins with `ailurus_`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::{ByError, GroupMetrics, GroupTopicMetrics, Histogram, PartitionMetrics, Registry, known_offset};
use crate::lock::Lock;
use crate::metrics::{Family, Kind, MetricsSnapshot, Sample, Unit, Value};

const SYSTEM: (&str, &str) = ("messaging_system", "kafka");
const OPERATION: &str = "messaging_operation_name";
const DESTINATION: &str = "messaging_destination_name";
const GROUP: &str = "messaging_consumer_group_name";
const ERROR: &str = "error_type";

type Labels<'a> = &'a [(&'static str, &'a str)];

pub(super) fn snapshot(registry: &Registry) -> MetricsSnapshot {
    let mut out = Families::default();
    conventions(registry, &mut out);
    producers(registry, &mut out);
    requests(registry, &mut out);
    connections(registry, &mut out);
    groups(registry, &mut out);
    fetching(registry, &mut out);
    partitions(registry, &mut out);
    handlers(registry, &mut out);
    let errors = "Errors that a part of the client has dealt with or told the program, by what they are.";
    out.counter("ailurus_errors_total", None, errors, |add| {
        for (part, errors) in registry.failures.all() {
            by_error(add, &[("part", part)], &errors, counter_value);
        }
    });
    MetricsSnapshot { families: out.0 }
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

fn seconds(n: &Lock<Duration>) -> Value {
    Value::Number(n.lock().as_secs_f64())
}

fn histogram_value(n: &Lock<Histogram>) -> Value {
    Value::Histogram(n.lock().clone())
}

/// One sample for each error, and one without the label where there was none.
fn by_error<V: Default>(add: &mut Samples, labels: Labels<'_>, values: &ByError<V>, value: fn(&V) -> Value) {
    for (error, n) in values.all() {
        let mut labels = labels.to_vec();
        if !error.is_empty() {
            labels.push((ERROR, &error));
        }
        add.push(&labels, value(&n));
    }
}

/// How much smaller compression has made something; nothing before there is any.
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
    let help = "Records that were acknowledged, or failed (error_type).";
    out.counter("messaging_client_sent_messages_total", None, help, |add| {
        for (topic, produced) in registry.topics.all() {
            let labels = [SYSTEM, (OPERATION, "send"), (DESTINATION, &*topic)];
            by_error(add, &labels, &produced.records, counter_value);
        }
    });
    let help = "Records that were handed to the program or its handlers.";
    out.counter("messaging_client_consumed_messages_total", None, help, |add| {
        each_group_topic(registry, |group, topic, read| {
            add.push(
                &[SYSTEM, (OPERATION, "poll"), (GROUP, group), (DESTINATION, topic)],
                counter_value(&read.consumed),
            );
        });
    });
    let help = "From the first record of a batch to its acknowledgement (send); requests that fetch (poll) and commit.";
    out.histogram("messaging_client_operation_duration_seconds", help, |add| {
        for (topic, produced) in registry.topics.all() {
            let labels = [SYSTEM, (OPERATION, "send"), (DESTINATION, &*topic)];
            by_error(add, &labels, &produced.took, histogram_value);
        }
        by_error(add, &[SYSTEM, (OPERATION, "poll")], &registry.polls, histogram_value);
        by_error(add, &[SYSTEM, (OPERATION, "commit")], &registry.commits, histogram_value);
    });
    let help = "Calls of handlers, those that failed with error_type=\"handler\".";
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
    let each = |add: &mut Samples, value: fn(&super::TopicMetrics) -> Option<Value>| {
        for (topic, produced) in &topics {
            value(produced).into_iter().for_each(|value| add.push(&[("topic", topic)], value));
        }
    };
    let help = "Batches that were made ready for the wire.";
    out.counter("ailurus_producer_batches_total", None, help, |add| each(add, |p| Some(counter_value(&p.batches))));
    let help = "Size of these batches before compression.";
    out.counter("ailurus_producer_uncompressed_bytes_total", Some(Unit::Bytes), help, |add| {
        each(add, |p| Some(counter_value(&p.uncompressed)));
    });
    let help = "Size of these batches as they are sent.";
    out.counter("ailurus_producer_sent_bytes_total", Some(Unit::Bytes), help, |add| {
        each(add, |p| Some(counter_value(&p.bytes)));
    });
    let help = "Uncompressed bytes for each byte sent, over all time.";
    out.gauge("ailurus_producer_compression_ratio", None, help, |add| {
        each(add, |p| ratio(&p.uncompressed, &p.bytes));
    });
    out.counter("ailurus_producer_retries_total", None, "Batches that were tried again, by why.", |add| {
        for (topic, produced) in &topics {
            by_error(add, &[("topic", topic)], &produced.retries, counter_value);
        }
    });
    let producers = &registry.producers;
    let help = "Buffer space taken by records that wait or are on their way.";
    out.gauge("ailurus_producer_buffer_used_bytes", Some(Unit::Bytes), help, |add| {
        add.push(&[], gauge_value(&producers.used));
    });
    let help = "Buffer space of the producers there are.";
    out.gauge("ailurus_producer_buffer_limit_bytes", Some(Unit::Bytes), help, |add| {
        add.push(&[], gauge_value(&producers.limit));
    });
    let help = "Records that had to wait for buffer space.";
    out.counter("ailurus_producer_buffer_waits_total", None, help, |add| {
        add.push(&[], counter_value(&producers.waits))
    });
    let help = "Time that they waited, together.";
    out.counter("ailurus_producer_buffer_wait_seconds_total", Some(Unit::Seconds), help, |add| {
        add.push(&[], seconds(&producers.waited));
    });
}

fn requests(registry: &Registry, out: &mut Families) {
    let brokers = registry.brokers.all();
    let each = |f: &mut dyn FnMut(Labels<'_>, &super::ApiMetrics)| {
        for (broker, of_broker) in &brokers {
            for (api, requests) in of_broker.apis.all() {
                f(&[("api", api), ("broker", broker)], &requests);
            }
        }
    };
    let help = "From handing a request to its connection to the answer.";
    out.histogram("ailurus_request_duration_seconds", help, |add| {
        each(&mut |labels, api| add.push(labels, histogram_value(&api.took)));
    });
    out.gauge("ailurus_requests_in_flight", None, "Requests that wait for an answer.", |add| {
        each(&mut |labels, api| add.push(labels, gauge_value(&api.in_flight)));
    });
    let help = "Requests that were not answered, or whose answer could not be read.";
    out.counter("ailurus_request_errors_total", None, help, |add| {
        each(&mut |labels, api| by_error(add, labels, &api.errors, counter_value));
    });
    let help = "Pauses that brokers have asked for because a quota was used up.";
    out.counter("ailurus_request_throttle_seconds_total", Some(Unit::Seconds), help, |add| {
        each(&mut |labels, api| add.push(labels, seconds(&api.throttled)));
    });
}

fn connections(registry: &Registry, out: &mut Families) {
    let brokers = registry.brokers.all();
    out.gauge("ailurus_connections", None, "Connections that are open.", |add| {
        brokers.iter().for_each(|(name, broker)| add.push(&[("broker", name)], gauge_value(&broker.connections)));
    });
    out.counter("ailurus_connections_opened_total", None, "Connections that were made.", |add| {
        brokers.iter().for_each(|(name, broker)| add.push(&[("broker", name)], counter_value(&broker.opened)));
    });
    let help = "Connections that could not be made, by why.";
    out.counter("ailurus_connection_failures_total", None, help, |add| {
        brokers.iter().for_each(|(name, broker)| by_error(add, &[("broker", name)], &broker.failures, counter_value));
    });
    let help = "Times that a connection proved anew who we are, or could not (error_type).";
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
    let help = "Consumers of this program by their place in the group: joining or member.";
    out.gauge("ailurus_consumer_members", None, help, |add| {
        for (name, group) in &groups {
            for (state, members) in group.members.all() {
                add.push(&[("group", name), ("state", state)], gauge_value(&members));
            }
        }
    });
    out.gauge("ailurus_consumer_assigned_partitions", None, "Partitions that are theirs.", |add| {
        each(add, |group| gauge_value(&group.assigned));
    });
    let help = "Partitions that were taken from them before they could be given up.";
    out.counter("ailurus_consumer_lost_partitions_total", None, help, |add| {
        each(add, |group| counter_value(&group.lost))
    });
    let help = "Rebalances, from the first a member knew of one to its partitions.";
    out.histogram("ailurus_consumer_rebalance_duration_seconds", help, |add| {
        each(add, |group| histogram_value(&group.rebalances));
    });
    out.counter("ailurus_consumer_commits_total", None, "Commits, those that failed with error_type.", |add| {
        groups.iter().for_each(|(name, group)| by_error(add, &[("group", name)], &group.commits, counter_value));
    });
}

fn fetching(registry: &Registry, out: &mut Families) {
    let each = |add: &mut Samples, value: fn(&GroupTopicMetrics) -> Option<Value>| {
        each_group_topic(registry, |group, topic, read| {
            value(read).into_iter().for_each(|value| add.push(&[("group", group), ("topic", topic)], value));
        });
    };
    let help = "Batches that were fetched and opened.";
    out.counter("ailurus_consumer_fetched_batches_total", None, help, |add| {
        each(add, |r| Some(counter_value(&r.batches)))
    });
    let help = "Records that were fetched.";
    out.counter("ailurus_consumer_fetched_records_total", None, help, |add| {
        each(add, |r| Some(counter_value(&r.fetched)))
    });
    let help = "Size of these batches as they came.";
    out.counter("ailurus_consumer_fetched_bytes_total", Some(Unit::Bytes), help, |add| {
        each(add, |r| Some(counter_value(&r.bytes)));
    });
    let help = "Size of these batches without compression.";
    out.counter("ailurus_consumer_uncompressed_bytes_total", Some(Unit::Bytes), help, |add| {
        each(add, |r| Some(counter_value(&r.uncompressed)));
    });
    let help = "Uncompressed bytes for each byte fetched, over all time.";
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
    let help = "Offset behind the last record that was handed to the program or its handlers.";
    out.gauge("ailurus_consumer_position_offset", None, help, |add| each(add, |p| known_offset(&p.position)));
    let help = "Offset that the group has committed.";
    out.gauge("ailurus_consumer_committed_offset", None, help, |add| each(add, |p| known_offset(&p.committed)));
    let help = "Offset behind the last record that can be read, as of the last fetch.";
    out.gauge("ailurus_consumer_end_offset", None, help, |add| each(add, |p| known_offset(&p.end)));
    let help = "Records up to there that were not handled yet, or not handed out where there are no handlers.";
    out.gauge("ailurus_consumer_lag_records", None, help, |add| each(add, PartitionMetrics::lag));
}

fn handlers(registry: &Registry, out: &mut Families) {
    let each = |add: &mut Samples, value: fn(&GroupTopicMetrics) -> &AtomicU64| {
        each_group_topic(registry, |group, topic, read| {
            add.push(&[("group", group), ("topic", topic)], counter_value(value(read)));
        });
    };
    let help = "Attempts of handlers that failed.";
    out.counter("ailurus_processor_failures_total", None, help, |add| each(add, |r| &r.attempts_failed));
    let help = "Attempts that failed after which their record is handed in again.";
    out.counter("ailurus_processor_retries_total", None, help, |add| each(add, |r| &r.retries));
    let help = "Records that were written to a dead-letter topic.";
    out.counter("ailurus_processor_dead_letters_total", None, help, |add| each(add, |r| &r.dead_letters));
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
    let help = "Records that are in a handler.";
    out.gauge("ailurus_processor_in_hand_records", None, help, |add| each(add, |p| &p.in_flight));
    let help = "Records that are here and were not begun.";
    out.gauge("ailurus_processor_waiting_records", None, help, |add| each(add, |p| &p.waiting));
    let help = "Records that have failed and wait for another attempt, or to be written as dead letters.";
    out.gauge("ailurus_processor_parked_records", None, help, |add| each(add, |p| &p.parked));
    let help = "Keys, or whatever is handled in order, that stand still because a record of theirs has failed.";
    out.gauge("ailurus_processor_parked_keys", None, help, |add| each(add, |p| &p.parked_keys));
}
