//! The page for people: what `GET /health/redpanda` tells, as HTML in one piece. It needs nothing from elsewhere.
//!
//! A small script takes the part that changes from `/fragment` every two seconds; without scripts the page asks for itself.

use std::sync::Arc;

use ailurus::Health;
use ailurus::health::{Activity, BrokerHealth, BrokerStatus, PartitionHealth, Status, SubscriptionHealth, TopicHealth};
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::App;
use crate::output::{names, or_dash, thousands};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// The most rows of a table, and the most problems: the worst are shown, and how many are not.
const ROWS: usize = 200;
const PROBLEMS: usize = 20;

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/", get(whole)).route("/fragment", get(fragment))
}

async fn whole(State(app): State<Arc<App>>) -> Response {
    let health = app.service.health().await;
    let nonce = uuid::Uuid::now_v7().simple().to_string();
    // The browser is to load nothing and to run nothing but what stands in this page.
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
    ];
    (headers, Html(page(&health, Utc::now(), &nonce).into_string())).into_response()
}

async fn fragment(State(app): State<Arc<App>>) -> Response {
    let health = app.service.health().await;
    ([(header::CACHE_CONTROL, "no-store")], Html(content(&health, Utc::now()).into_string())).into_response()
}

fn page(health: &Health, now: DateTime<Utc>, nonce: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                noscript { meta http-equiv="refresh" content="5"; }
                title { (word(health.status)) " – ailurus" }
                link rel="icon" href="data:,";
                style nonce=(nonce) { (PreEscaped(STYLE)) }
            }
            body {
                p #gone role="alert" hidden { "No answer from this process: what stands here is old." }
                p #told .unseen role="status" {}
                main #live { (content(health, now)) }
                footer {
                    "The same as JSON: "
                    a href="health/redpanda" { "health/redpanda" }
                    a href="health/ready" { "health/ready" }
                    a href="health/live" { "health/live" }
                }
                script nonce=(nonce) { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// What changes.
fn content(health: &Health, now: DateTime<Utc>) -> Markup {
    html! {
        header data-status=(word(health.status)) {
            p.brand { "ailurus" }
            h1.state.(mood(health.status)) { (word(health.status)) }
            p.soft {
                "Cluster " (or_dash(health.cluster_id.as_deref())) ", controller " (or_dash(health.controller_id)) ", as of "
                time datetime=(now.to_rfc3339()) { (now.format("%H:%M:%S")) " UTC" }
            }
        }
        @if !health.problems.is_empty() {
            ul.problems aria-label="Problems" {
                @for problem in health.problems.iter().take(PROBLEMS) { li { (problem) } }
                @if health.problems.len() > PROBLEMS { li { "and " (health.problems.len() - PROBLEMS) " more" } }
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
            h2 #groups { "Groups " small { (health.subscriptions.len()) } }
            @if health.subscriptions.is_empty() { p.soft { "No subscription runs." } }
            @for s in &health.subscriptions { (group(s)) }
        }
    }
}

fn brokers(all: &[BrokerHealth], controller: Option<i32>) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Broker" } th.name scope="col" { "Address" } th scope="col" { "State" }
                th.n scope="col" { "Answers in" }
            } }
            tbody { @for b in all { tr {
                th scope="row" { (or_dash(b.id)) }
                td.name { (address(&b.address)) }
                td {
                    @match b.status {
                        BrokerStatus::Up => span.state.good { "up" },
                        BrokerStatus::Down => span.state.bad { "down" },
                    }
                    @if b.id.is_some() && b.id == controller { small { "controller" } }
                }
                td.n { (or_dash(b.latency_ms.map(|ms| format!("{ms:.1} ms")))) }
            } } }
        }
    }
}

/// Where it is too long for its line, the port goes to the next.
fn address(at: &str) -> Markup {
    let (host, port) = at.rsplit_once(':').map_or((at, None), |(host, port)| (host, Some(port)));
    html! { (host) @if let Some(port) = port { wbr; ":" (port) } }
}

fn topics(all: &[TopicHealth]) -> Markup {
    let mut shown: Vec<_> = all.iter().collect();
    if shown.len() > ROWS {
        shown.sort_by_key(|t| (t.exists, std::cmp::Reverse((t.without_leader, t.under_replicated))));
    }
    html! {
        table {
            thead { tr {
                th.name scope="col" { "Topic" } th.n scope="col" { "Partitions" } th scope="col" { "Leaders" }
                th.wide scope="col" { "Replicas" }
            } }
            tbody { @for t in shown.into_iter().take(ROWS) { tr {
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

fn group(s: &SubscriptionHealth) -> Markup {
    let mut shown: Vec<_> = s.partitions.iter().collect();
    if shown.len() > ROWS {
        shown.sort_by_key(|p| std::cmp::Reverse((p.activity, p.lag)));
        shown.truncate(ROWS);
        shown.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    }
    let of_topics = shown.chunk_by(|a, b| a.topic == b.topic);
    html! {
        h3 { (s.group) " " span.state.(shade(s.activity)) { (name(s.activity)) } }
        dl {
            div { dt { "State" } dd { (s.state) " for " (long(s.state_ms)) } }
            @if let Some(generation) = s.generation { div { dt { "Generation" } dd { (generation) } } }
            div { dt { "Lag" } dd { (count(s.lag)) } }
            @if let Some(id) = &s.member_id { div { dt { "Member" } dd { (id) } } }
        }
        @if s.partitions.is_empty() {
            p.soft { "No partition of " (names(&s.topics)) " is assigned to it here." }
        } @else {
            table.parts aria-label={ "Partitions of " (s.group) } {
                thead { tr {
                    th scope="col" { "Partition" } th.fill scope="col" { "State" } th.n.offset scope="col" { "Lag" }
                    th.n.offset.wide scope="col" { "Position" } th.n.offset.wide scope="col" { "Committed" }
                    th.n.wide scope="col" { "In hand" }
                } }
                @for partitions in of_topics {
                    tbody {
                        @if let Some(first) = partitions.first() {
                            tr.group { th scope="rowgroup" colspan="3" { (first.topic) } td.wide colspan="3" {} }
                        }
                        @for p in partitions { (partition(p)) }
                    }
                }
            }
            (rest(s.partitions.len()))
        }
    }
}

fn partition(p: &PartitionHealth) -> Markup {
    html! {
        tr {
            th scope="row" { (p.partition) }
            td {
                span.state.(shade(p.activity)) { (name(p.activity)) }
                @if p.activity == Activity::Stalled { " for " (long(p.quiet_ms.unwrap_or_default())) }
                @if let Some(why) = &p.paused { small.why { (why) } }
            }
            td.n { (or_dash(p.lag.map(count))) }
            td.n.wide { @if p.position < 0 { "-" } @else { (count(p.position)) } }
            td.n.wide { (or_dash(p.committed.map(count))) }
            td.n.wide { (thousands(p.in_flight as u64)) }
        }
    }
}

/// Says what a table has left out.
fn rest(all: usize) -> Markup {
    html! { @if all > ROWS { p.soft { "and " (thousands((all - ROWS) as u64)) " more, which are no worse" } } }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Healthy => "Healthy",
        Status::Degraded => "Degraded",
        Status::Unhealthy => "Unhealthy",
    }
}

fn mood(status: Status) -> &'static str {
    match status {
        Status::Healthy => "good",
        Status::Degraded => "fair",
        Status::Unhealthy => "bad",
    }
}

fn name(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "idle",
        Activity::Busy => "busy",
        Activity::Stalled => "stalled",
    }
}

fn shade(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "soft",
        Activity::Busy => "busy",
        Activity::Stalled => "bad",
    }
}

fn count(n: i64) -> String {
    thousands(u64::try_from(n).unwrap_or_default())
}

/// A time as people say it.
fn long(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests;
