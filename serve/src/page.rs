//! The page for people: a [`Report`] as HTML in one piece, which loads nothing from elsewhere.
//!
//! A small script takes the part that changes from `fragment` every two seconds; without scripts the page reloads itself.

use std::time::Duration;

use ailurus::health::{
    Activity, BrokerHealth, BrokerStatus, PartitionHealth, Status, SubscriptionHealth, TopicHealth,
    TransactionalProducerHealth, TransactionalProducerState,
};
use ailurus::processor::PauseReason;
use ailurus::{Health, Timestamp};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};
use serde::Serialize;
use tokio::time::Instant;

use crate::lag::LagHistory;
use crate::text::{names, or_dash, thousands};
pub(crate) use frame::Frame;

mod frame;

const SCRIPT: &str = include_str!("page.js");
/// Maximum number of rows of a table: the worst are shown, and the others counted.
const MAX_ROWS: usize = 200;
/// Maximum number of problems shown.
const MAX_PROBLEMS: usize = 20;

/// State of a cluster and of groups: `GET /health/redpanda` is its JSON, the page shows it.
pub trait Report: Serialize + Send + Sync + 'static {
    /// Returns the cluster's health, with the status of all.
    fn health(&self) -> &Health;

    /// Returns the groups to show.
    fn groups(&self) -> Vec<Group<'_>>;

    /// Returns the text in place of groups where there are none.
    fn no_groups(&self) -> &'static str;

    /// Returns the topics of dead letters and the number of records in each, where it is known; none to leave them out.
    fn dead_letters(&self) -> Option<Vec<(&str, Option<u64>)>> {
        None
    }
}

/// A group on the page.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    /// Name of the group.
    pub name: &'a str,
    /// The worst activity of its partitions.
    pub activity: Activity,
    /// Facts about the group, by name.
    pub facts: Vec<(&'static str, String)>,
    /// Heads of the columns of its partitions; small screens show the first alone.
    pub columns: &'static [&'static str],
    /// Partitions, by topic and number.
    pub partitions: Vec<Partition<'a>>,
    /// Text in place of partitions where there are none.
    pub no_partitions: String,
}

/// A partition of a group on the page.
#[derive(Debug, Clone)]
pub struct Partition<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// Number of the partition.
    pub partition: i32,
    /// Idle, busy or stalled.
    pub activity: Activity,
    /// Time for which it has been stalled.
    pub stalled: Duration,
    /// Number of records behind, by which rows are chosen.
    pub lag: Option<i64>,
    /// A remark on the state.
    pub remark: Option<&'a str>,
    /// A cell for each of the group's columns.
    pub cells: Vec<String>,
}

/// Returns the page.
///
/// `base` is the path of the routes, relative to that of the page.
pub(crate) fn whole(report: &impl Report, lag: &LagHistory, base: &str, has_actions: bool) -> Response {
    let title = word(report.health().status);
    let here = has_actions.then_some("overview");
    let frame = Frame { title, base, here, script: Some(SCRIPT), has_forms: false };
    frame.response(&body(report, lag, Timestamp::now(), base))
}

/// Returns the part of the page that changes.
pub(crate) fn fragment(report: &impl Report, lag: &LagHistory) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Html(content(report, lag, Timestamp::now()).into_string())).into_response()
}

fn body(report: &impl Report, lag: &LagHistory, now: Timestamp, base: &str) -> Markup {
    html! {
        p #gone role="alert" hidden { "This process does not respond: the page is old." }
        p #status .unseen role="status" {}
        main #live data-fragment={ (base) "fragment" } { (content(report, lag, now)) }
        footer {
            "The same as JSON: "
            a href={ (base) "health/redpanda" } { "health/redpanda" }
            a href={ (base) "health/ready" } { "health/ready" }
            a href={ (base) "health/live" } { "health/live" }
        }
    }
}

fn content(report: &impl Report, lag: &LagHistory, now: Timestamp) -> Markup {
    let (health, groups) = (report.health(), report.groups());
    html! {
        header data-status=(word(health.status)) {
            p.brand { "ailurus" }
            h1.state.(mood(health.status)) { (word(health.status)) }
            p.soft {
                "Cluster " (or_dash(health.cluster_id.as_deref())) ", controller " (or_dash(health.controller_id)) ", as of "
                time datetime=(now) { (time_of_day(now)) " UTC" }
            }
        }
        @if !health.problems.is_empty() {
            ul.problems aria-label="Problems" {
                @for problem in health.problems.iter().take(MAX_PROBLEMS) { li { (problem) } }
                @if health.problems.len() > MAX_PROBLEMS { li { "and " (health.problems.len() - MAX_PROBLEMS) " more" } }
            }
        }
        section aria-labelledby="brokers" {
            h2 #brokers { "Brokers " small { (health.brokers.len()) } }
            (brokers(&health.brokers, health.controller_id))
        }
        section aria-labelledby="topics" {
            h2 #topics { "Topics " small { (health.topics.len()) } }
            @if health.topics.is_empty() { p.soft { "None is in use." } } @else { (topics(&health.topics)) }
        }
        section aria-labelledby="groups" {
            h2 #groups { "Groups " small { (groups.len()) } }
            @if groups.is_empty() { p.soft { (report.no_groups()) } }
            @for g in groups { (group(g, lag)) }
        }
        @if !health.transactional_producers.is_empty() { (transactions(&health.transactional_producers)) }
        @if let Some(topics) = report.dead_letters() { (dead_letters(&topics)) }
    }
}

fn brokers(all: &[BrokerHealth], controller: Option<i32>) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Broker" } th.name scope="col" { "Address" } th scope="col" { "State" }
                th.n scope="col" { "Latency" }
            } }
            tbody { @for b in all { tr {
                th scope="row" { (or_dash(b.id)) }
                td.name { (address(&b.address)) }
                td {
                    @match b.status {
                        BrokerStatus::Up => span.state.good { "up" },
                        BrokerStatus::Down => span.state.bad { "down" },
                        _ => span.state { "unknown" },
                    }
                    @if b.id.is_some() && b.id == controller { small { "controller" } }
                }
                td.n { (or_dash(b.latency.map(latency))) }
            } } }
        }
    }
}

/// Breaks an address that is too long for its line before the port.
fn address(at: &str) -> Markup {
    let (host, port) = at.rsplit_once(':').map_or((at, None), |(host, port)| (host, Some(port)));
    html! { (host) @if let Some(port) = port { wbr; ":" (port) } }
}

fn topics(all: &[TopicHealth]) -> Markup {
    let mut shown: Vec<_> = all.iter().collect();
    if shown.len() > MAX_ROWS {
        shown.sort_by_key(|t| (t.exists, std::cmp::Reverse((t.without_leader, t.under_replicated))));
    }
    html! {
        table {
            thead { tr {
                th.name scope="col" { "Topic" } th.n scope="col" { "Partitions" } th scope="col" { "Leaders" }
                th.wide scope="col" { "Replicas" }
            } }
            tbody { @for t in shown.into_iter().take(MAX_ROWS) { tr {
                th scope="row" { (t.name) }
                td.n { (thousands(t.partitions as u64)) }
                td {
                    @if !t.exists { span.state.bad { "does not exist" } }
                    @else if t.without_leader > 0 { span.state.bad { (t.without_leader) " missing" } }
                    @else { span.state.good { "all there" } }
                }
                td.wide {
                    @if !t.exists { "-" }
                    @else if t.under_replicated > 0 { span.state.fair { "behind in " (t.under_replicated) } }
                    @else { span.state.good { "in sync" } }
                }
            } } }
        }
        (rest(all.len()))
    }
}

fn group(g: Group<'_>, lag: &LagHistory) -> Markup {
    let (mut shown, count) = (g.partitions, g.columns.len());
    let all = shown.len();
    if all > MAX_ROWS {
        shown.sort_by_key(|p| std::cmp::Reverse((p.activity, p.lag)));
        shown.truncate(MAX_ROWS);
        shown.sort_by_key(|p| (p.topic, p.partition));
    }
    html! {
        h3 { (g.name) " " span.state.(shade(g.activity)) { (name(g.activity)) } }
        dl { @for (name, value) in &g.facts { div { dt { (name) } dd { (value) } } } }
        (lag.chart(g.name, Instant::now()))
        @if shown.is_empty() {
            p.soft { (g.no_partitions) }
        } @else {
            table.parts aria-label={ "Partitions of " (g.name) } {
                thead { tr {
                    th scope="col" { "Partition" } th.fill scope="col" { "State" }
                    @for (i, column) in g.columns.iter().enumerate() {
                        th.n.offset[i < 3].wide[i > 0] scope="col" { (column) }
                    }
                } }
                @for partitions in shown.chunk_by(|a, b| a.topic == b.topic) {
                    tbody {
                        @if let Some(first) = partitions.first() {
                            tr.group {
                                th scope="rowgroup" colspan="3" { (first.topic) }
                                @if count > 1 { td.wide colspan=(count - 1) {} }
                            }
                        }
                        @for p in partitions { (partition(p)) }
                    }
                }
            }
            (rest(all))
        }
    }
}

fn partition(p: &Partition<'_>) -> Markup {
    html! {
        tr {
            th scope="row" { (p.partition) }
            td {
                span.state.(shade(p.activity)) { (name(p.activity)) }
                @if p.activity == Activity::Stalled { " for " (duration(p.stalled)) }
                @if let Some(remark) = p.remark { small.why { (remark) } }
            }
            @for (i, cell) in p.cells.iter().enumerate() { td.n.wide[i > 0] { (cell) } }
        }
    }
}

fn transactions(all: &[TransactionalProducerHealth]) -> Markup {
    let mut shown: Vec<_> = all.iter().collect();
    if shown.len() > MAX_ROWS {
        shown.sort_by_key(|p| std::cmp::Reverse((producer_shade(p.state) == "bad", p.open_for)));
    }
    html! {
        section aria-labelledby="transactions" {
            h2 #transactions { "Transactional producers " small { (all.len()) } }
            table {
                thead { tr {
                    th.name scope="col" { "Id" } th.fill scope="col" { "State" } th.n.wide scope="col" { "Open" }
                    th.n.wide scope="col" { "Committed" } th.n.wide scope="col" { "Aborted" }
                    th.n.wide scope="col" { "Commit" }
                } }
                tbody { @for p in shown.into_iter().take(MAX_ROWS) { tr {
                    th scope="row" { (p.transactional_id) @if let Some(group) = &p.group { small { "of " (group) } } }
                    td {
                        span.state.(producer_shade(p.state)) { (p.state) }
                        @if let Some(problem) = &p.problem { small.why { (problem) } }
                        @else if let Some(e) = &p.last_error { small.why { (duration(e.age)) " ago: " (e.error) " (" (e.action) ")" } }
                    }
                    td.n.wide { (or_dash(p.open_for.map(duration))) }
                    td.n.wide { (thousands(p.committed)) }
                    td.n.wide { (thousands(p.aborted)) }
                    td.n.wide { (or_dash(p.commit_latency.map(latency))) }
                } } }
            }
            (rest(all.len()))
        }
    }
}

/// Returns the colour of a state.
fn producer_shade(state: TransactionalProducerState) -> &'static str {
    match state {
        TransactionalProducerState::Fenced | TransactionalProducerState::Stopped => "bad",
        TransactionalProducerState::Unconfirmed => "fair",
        _ => "good",
    }
}

fn dead_letters(topics: &[(&str, Option<u64>)]) -> Markup {
    html! {
        section aria-labelledby="dead-letters" {
            h2 #dead-letters { "Dead letters " small { (topics.len()) } }
            @if topics.is_empty() { p.soft { "No topic of dead letters exists." } } @else {
                table {
                    thead { tr { th.name scope="col" { "Topic" } th.n scope="col" { "Records" } } }
                    tbody { @for (topic, records) in topics.iter().take(MAX_ROWS) { tr {
                        th scope="row" { (topic) }
                        td.n { (or_dash(records.map(thousands))) }
                    } } }
                }
                (rest(topics.len()))
            }
        }
    }
}

/// Returns the number of rows that a table has left out.
fn rest(all: usize) -> Markup {
    html! { @if all > MAX_ROWS { p.soft { "and " (thousands((all - MAX_ROWS) as u64)) " more, which are no worse" } } }
}

impl Report for Health {
    fn health(&self) -> &Health {
        self
    }

    fn groups(&self) -> Vec<Group<'_>> {
        self.subscriptions.iter().map(subscription).collect()
    }

    fn no_groups(&self) -> &'static str {
        "No subscription runs."
    }
}

fn subscription(s: &SubscriptionHealth) -> Group<'_> {
    let mut facts = vec![("State", format!("{} for {}", s.state, duration(s.state_age)))];
    facts.extend(s.generation.map(|generation| ("Generation", generation.to_string())));
    facts.push(("Lag", count(s.lag)));
    facts.extend(s.member_id.clone().map(|id| ("Member", id)));
    for w in &s.waiting_for {
        facts.push(("Waiting for", format!("{} since {}: {}", w.dependency, w.since, w.error)));
    }
    Group {
        name: &s.group,
        activity: s.activity,
        facts,
        columns: &["Lag", "Position", "Committed", "In flight"],
        partitions: s.partitions.iter().map(of_subscription).collect(),
        no_partitions: format!("No partition of {} is assigned to it here.", names(&s.topics)),
    }
}

fn paused_by(reason: PauseReason) -> &'static str {
    match reason {
        PauseReason::Control => "Paused by control",
        PauseReason::Breaker => "Waits for a dependency of its handler",
        _ => "Paused",
    }
}

fn of_subscription(p: &PartitionHealth) -> Partition<'_> {
    let position = if p.position < 0 { "-".to_owned() } else { count(p.position) };
    Partition {
        topic: &p.topic,
        partition: p.partition,
        activity: p.activity,
        stalled: p.quiet_for.unwrap_or_default(),
        lag: p.lag,
        remark: p.paused.as_deref().or_else(|| p.paused_by.first().map(|reason| paused_by(*reason))),
        cells: vec![
            or_dash(p.lag.map(count)),
            position,
            or_dash(p.committed.map(count)),
            thousands(p.in_flight as u64),
        ],
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Healthy => "Healthy",
        Status::Degraded => "Degraded",
        Status::Unhealthy => "Unhealthy",
        _ => "Unknown",
    }
}

fn mood(status: Status) -> &'static str {
    match status {
        Status::Healthy => "good",
        Status::Degraded => "fair",
        Status::Unhealthy => "bad",
        _ => "fair",
    }
}

fn name(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "idle",
        Activity::Busy => "busy",
        Activity::Stalled => "stalled",
        _ => "unknown",
    }
}

fn shade(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "soft",
        Activity::Busy => "busy",
        Activity::Stalled => "bad",
        _ => "soft",
    }
}

/// Returns a number of records, or an offset, with its thousands apart.
pub fn count(n: i64) -> String {
    thousands(u64::try_from(n).unwrap_or_default())
}

/// Returns the duration of a request in milliseconds.
pub fn latency(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Returns hours, minutes and seconds in UTC.
fn time_of_day(time: Timestamp) -> String {
    format!("{time:.0}").chars().skip_while(|c| *c != 'T').filter(|c| c.is_ascii_digit() || *c == ':').collect()
}

/// Returns a time in its largest unit.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests;
