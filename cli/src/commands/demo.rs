//! `ailurus demo`: events through consumer groups while a member is killed, and a check of the history.

mod events;
mod history;
mod members;
mod plan;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ailurus::{Admin, Client, Compression, Config, ConsumerConfig, Delivery, Producer, ProducerRecord};
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::embedded::Embedded;
use crate::exit::Exit;
use crate::options::{Global, Json};
use crate::output::{self, note, thousands};
use crate::settings;
use crate::signals::Shutdown;
use history::{Verdict, per_second};
use members::{Members, Run};
use plan::{Names, PARTITIONS, Stream};
use tokio::time::Instant;

/// Publish a shop's events, kill a consumer meanwhile, and check that no event is lost.
///
/// Publishes the life cycles of --orders orders (created, paid, shipped, completed; gzip, key = order id) and a stock update
/// for each; two members of each of two consumer groups handle them. While events flow, a member of each group is killed as
/// by a crash, and a new one joins. Then the history is checked: every event published must be handled, and those of a key in
/// order. An event handled again after the kill is a duplicate, not an error.
///
/// Without a broker (--brokers, REDPANDA_BROKERS, .env) it starts an embedded one of three nodes. Topics and groups have
/// unique names and are deleted at the end.
#[derive(Debug, Args)]
#[command(after_help = "Exits with 1 if an event is lost, out of order or was not acknowledged.")]
pub struct Demo {
    /// Number of orders, of five events each.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    orders: u32,
    /// Maximum time until all events are handled; others count as lost [default: 90, and one more for each 1,000
    /// orders].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    #[command(flatten)]
    output: Json,
}

/// Maximum time for the deletion of topics and groups.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of events in flight; the producer's memory bounds their bytes.
const MAX_IN_FLIGHT: usize = 100_000;

/// The result, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    verdict: Verdict,
    /// Number of events that failed, or were not acknowledged in time.
    not_acknowledged: u64,
    dead_letters: u64,
    rebalances: u64,
    publish_per_s: f64,
    seconds: f64,
    orders: u32,
    brokers: String,
    embedded: bool,
    /// Reason why the run ended early, if it did.
    cut_short: Option<String>,
}

pub async fn run(global: &Global, args: Demo) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::install()?;
    let mut builder = settings::builder(global)?;
    let embedded = if settings::names_brokers(global)? { None } else { Some(Embedded::for_demo().await?) };
    if let Some(embedded) = &embedded {
        builder = builder.brokers(embedded.brokers());
    }
    let config = builder.compression(Compression::gzip(Compression::DEFAULT_GZIP_LEVEL)?).build()?;
    let result = Demonstration::new(config, embedded.is_some(), args).run(&shutdown).await;
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    result
}

struct Demonstration {
    config: Config,
    embedded: bool,
    args: Demo,
    names: Names,
    run: Arc<Run>,
}

impl Demonstration {
    fn new(config: Config, embedded: bool, args: Demo) -> Self {
        let id = Uuid::now_v7().simple().to_string();
        let names = Names::with_prefix(format!("ailurus-demo-{}-", &id[24..]));
        let run = Arc::new(Run::new(args.orders));
        Self { config, embedded, args, names, run }
    }

    async fn run(self, shutdown: &Shutdown) -> anyhow::Result<Exit> {
        let client = Client::connect(self.config.clone()).await?;
        let admin = Admin::new(&client);
        self.print_phase(
            "Brokers",
            format_args!("{}{}", settings::broker_list(&self.config), if self.embedded { " (embedded)" } else { "" }),
        );
        let result = self.with_topics(&client, &admin, shutdown).await;
        self.run.progress.clear();
        let printed = match &result {
            Ok(report) if self.args.output.json => output::json(report),
            Ok(report) => output::print(report),
            Err(_) => Ok(()),
        };
        if tokio::time::timeout(CLEAN_UP_TIMEOUT, self.delete_topics(&admin)).await.is_err() {
            self.print_phase("Left", format_args!("topics and groups: not deleted within {CLEAN_UP_TIMEOUT:?}"));
        }
        client.close().await;
        let report = result?;
        printed?;
        Ok(match report.is_good() {
            true => Exit::Success,
            false if shutdown.is_requested() => Exit::Interrupted,
            false => Exit::Failure,
        })
    }

    /// Prints a phase: on stdout for people, on stderr beside JSON.
    fn print_phase(&self, phase: &str, what: fmt::Arguments<'_>) {
        self.run.progress.suspend(|| {
            if self.args.output.json {
                note(format_args!("{phase:<9} {what}"));
            } else {
                // An error of stdout is reported when the result is written.
                let _ = output::print(format_args!("{phase:<9} {what}\n"));
            }
        });
    }

    async fn with_topics(&self, client: &Client, admin: &Admin, shutdown: &Shutdown) -> anyhow::Result<Report> {
        for stream in [Stream::Orders, Stream::Stock] {
            let topic = self.names.topic(stream);
            admin.create_topic(&topic, PARTITIONS, None).await?;
            self.print_phase("Topic", format_args!("{topic} with {PARTITIONS} partitions"));
        }
        let mut members = Members::new(self.config.clone(), self.consumer_config(), self.names.clone());
        let begun = Instant::now();
        let patience = Duration::from_secs(self.args.timeout.unwrap_or(90 + u64::from(self.args.orders) / 1000));
        let mut published = Published::default();
        let scenario = self.scenario(client, &mut members, &mut published);
        let cut_short = tokio::select! {
            ended = tokio::time::timeout(patience, scenario) => match ended {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(format!("{e:#}")),
                Err(_) => Some(format!("not everything was handled within {patience:?}")),
            },
            () = shutdown.requested() => Some("interrupted".to_owned()),
        };
        let closed = match &cut_short {
            // A shutdown might hang as well.
            Some(_) if !shutdown.is_requested() => {
                members.kill_all().await;
                Ok(())
            }
            _ => members.close().await,
        };
        let verdict = self.run.history(|h| h.verdict(|member| members.assignments(member)));
        Ok(Report {
            not_acknowledged: self.run.plan.len() as u64 - verdict.published,
            verdict,
            dead_letters: members.dead_letters(),
            rebalances: members.rebalances(),
            publish_per_s: published.per_second,
            seconds: (begun.elapsed().as_secs_f64() * 1e3).round() / 1e3,
            orders: self.args.orders,
            brokers: settings::broker_list(&self.config),
            embedded: self.embedded,
            cut_short: cut_short.or(closed.err().map(|e| format!("{e:#}"))),
        })
    }

    /// Returns settings with a session timeout as short as brokers allow, after which a killed member is removed.
    fn consumer_config(&self) -> ConsumerConfig {
        let mut config = self.config.consumer.clone();
        config.session_timeout = if self.embedded { Duration::from_secs(2) } else { Duration::from_secs(6) };
        config.heartbeat_interval = config.session_timeout / 4;
        config.rebalance_timeout = Duration::from_secs(10);
        config
    }

    async fn scenario(&self, client: &Client, members: &mut Members, published: &mut Published) -> anyhow::Result<()> {
        let begun = Instant::now();
        for stream in [Stream::Orders, Stream::Orders, Stream::Stock, Stream::Stock] {
            members.add(&self.run, stream).await?;
        }
        members.settle().await?;
        self.print_phase("Members", format_args!("2 in each of 2 groups after {:.2?}", begun.elapsed()));
        let producer = client.producer().config(self.config.producer.clone()).start()?;
        let (phase, phases) = watch::channel(Phase::Started);
        (*published, ()) = tokio::try_join!(self.publish(&producer, phases), self.kill_and_add(members, phase))?;
        self.wait_for_handled(self.run.history(|h| h.acknowledged_so_far())).await;
        self.print_phase(
            "Handled",
            format_args!("everything published, {:.2?} after the first event", self.run.since_first()),
        );
        producer.close(Duration::from_secs(10)).await?;
        Ok(())
    }

    /// Kills a member of each group while events flow, and adds another.
    async fn kill_and_add(&self, members: &mut Members, phase: watch::Sender<Phase>) -> anyhow::Result<()> {
        self.wait_for_handled(self.run.plan.len() as u64 / 5).await;
        for stream in [Stream::Orders, Stream::Stock] {
            members.kill(stream).await;
        }
        phase.send_replace(Phase::Killed);
        let (killed, handled) = (Instant::now(), self.run.history(|h| h.handled_so_far()));
        self.print_phase("Kill", format_args!("a member of each group, after {} events", thousands(handled)));
        for stream in [Stream::Orders, Stream::Stock] {
            members.add(&self.run, stream).await?;
        }
        members.settle().await?;
        phase.send_replace(Phase::Settled);
        self.print_phase(
            "Join",
            format_args!(
                "a new member in each group; all partitions have an owner again {:.2?} after",
                killed.elapsed()
            ),
        );
        Ok(())
    }

    async fn wait_for_handled(&self, events: u64) {
        while self.run.history(|h| h.handled_so_far()) < events {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends all events.
    async fn publish(&self, producer: &Producer, mut phase: watch::Receiver<Phase>) -> anyhow::Result<Published> {
        let (pending, mut deliveries) = mpsc::channel::<(usize, Delivery)>(MAX_IN_FLIGHT);
        let run = Arc::clone(&self.run);
        let mut acks = JoinSet::new(); // aborted if this function is cancelled
        acks.spawn(async move {
            let mut error = None;
            while let Some((event, delivery)) = deliveries.recv().await {
                match delivery.await {
                    Ok(_) => run.history(|h| h.acknowledged(event)),
                    Err(e) => error = Some(e),
                }
            }
            error
        });
        let mut busy = Instant::now();
        let mut spent = Duration::ZERO;
        let events = self.run.plan.len();
        for event in 0..events {
            // Some events wait for each phase, so that every phase has work on every machine.
            let gate =
                [(2, Phase::Killed), (3, Phase::Settled)].iter().find(|(fifths, _)| event == events * fifths / 5);
            if let Some((_, wanted)) = gate {
                spent += busy.elapsed();
                phase.wait_for(|phase| phase >= wanted).await.context("the run ended early")?;
                busy = Instant::now();
            }
            let e = self.run.plan.encode(event)?;
            self.run.history(|h| h.sent(event, self.run.begun.elapsed()));
            let topic = self.names.topic(e.stream);
            let record = ProducerRecord::to(&topic).key(&e.key).value(&e.value).headers(&e.headers);
            pending.send((event, producer.send(record).await?)).await.context("acknowledgements are no longer read")?;
        }
        drop(pending);
        let error = acks.join_next().await.transpose()?.flatten();
        spent += busy.elapsed();
        self.print_phase("Publish", format_args!("{} events in {spent:.2?}", thousands(events as u64)));
        match error {
            Some(e) => Err(anyhow::Error::new(e).context("publishing")),
            None => Ok(Published { per_second: per_second(events as u64, spent) }),
        }
    }

    async fn delete_topics(&self, admin: &Admin) {
        for stream in [Stream::Orders, Stream::Stock] {
            let (topic, group) = (self.names.topic(stream), self.names.group(stream));
            for topic in [&topic, &format!("{topic}{}", self.config.processor.dead_letter_suffix)] {
                match admin.delete_topic(topic).await {
                    Err(e) if !e.is_unknown_topic() => self.print_phase("Left", format_args!("topic {topic}: {e:#}")),
                    _ => {}
                }
            }
            // Brokers delete a group without members in any case, only later.
            if let Err(e) = admin.delete_group(&group).await {
                tracing::debug!(group, error = format!("{e:#}"), "the group was not deleted");
            }
        }
    }
}

/// Phase of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Started,
    Killed,
    /// New members have joined, and all partitions are assigned.
    Settled,
}

/// Result of the publishing.
#[derive(Debug, Default)]
struct Published {
    per_second: f64,
}

impl Report {
    fn is_good(&self) -> bool {
        let Verdict { lost, out_of_order, .. } = self.verdict;
        lost == 0 && out_of_order == 0 && self.not_acknowledged == 0 && self.cut_short.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.verdict;
        writeln!(f)?;
        for (name, n) in [
            ("published", v.published),
            ("handled", v.handled),
            ("lost", v.lost),
            ("out of order", v.out_of_order),
            ("duplicates", v.duplicates),
            ("dead letters", self.dead_letters),
            ("rebalances", self.rebalances),
        ] {
            writeln!(f, "{name:<14} {:>12}", thousands(n))?;
        }
        if self.not_acknowledged > 0 {
            writeln!(f, "{:<14} {:>12}", "not published", thousands(self.not_acknowledged))?;
        }
        writeln!(
            f,
            "{:<14} {:>12} events/s published, {} events/s handled, the wait for the killed members included",
            "throughput",
            thousands(self.publish_per_s as u64),
            thousands(v.throughput_per_s as u64)
        )?;
        writeln!(
            f,
            "{:<14} {:>9.1} ms p50, {:.1} ms p99 from publishing to handling, the same included",
            "latency", v.p50_ms, v.p99_ms
        )?;
        if let Some(why) = &self.cut_short {
            writeln!(f, "cut short: {why}")?;
        }
        Ok(())
    }
}
