//! Subscriptions of the process: paused, resumed, moved, and their concurrency.

use ailurus::health::SubscriptionHealth;
use ailurus::processor::SubscriptionControl;
use ailurus::{StartOffset, TopicPartition};
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

use super::Actions;
use super::context::Context;
use super::form::{Form, Posted};
use crate::control::{Controls, Refusal, place, scope};
use crate::page::count;
use crate::text::or_dash;

/// Page of the navigation.
const HERE: &str = "subscriptions";
/// Maximum number of partitions of a subscription that have buttons.
const MAX_ROWS: usize = 200;

pub(super) async fn list(State(actions): State<Actions>, context: Context) -> Response {
    let controls = actions.0.controls.all();
    let health = actions.client().health().await;
    let content = html! {
        @if controls.is_empty() { p.soft { "No subscription of this process is controlled here." } }
        @for control in &controls {
            @let health = health.subscriptions.iter().rfind(|s| s.group == control.group());
            (subscription(&context, control, health))
        }
    };
    context.page("Subscriptions", &content)
}

pub(super) async fn pause(State(controls): State<Controls>, context: Context, Posted(form): Posted) -> Response {
    context.respond(HERE, set_paused(&controls, &form, true))
}

pub(super) async fn resume(State(controls): State<Controls>, context: Context, Posted(form): Posted) -> Response {
    context.respond(HERE, set_paused(&controls, &form, false))
}

fn set_paused(controls: &Controls, form: &Form, paused: bool) -> Result<String, Refusal> {
    let control = controls.find(form.needed("group")?)?;
    let partition = form.text("partition").map(|_| form.number("partition")).transpose()?;
    let scope = scope(form.text("topic").map(str::to_owned), partition)?;
    let what = format!("{scope} of {}", control.group());
    if paused {
        control.pause(scope)?;
        Ok(format!("Paused: {what}. The group does not rebalance."))
    } else {
        control.resume(scope)?;
        Ok(format!("Resumed: {what}."))
    }
}

pub(super) async fn seek(State(controls): State<Controls>, context: Context, Posted(form): Posted) -> Response {
    let seeking = async {
        let control = controls.find(form.needed("group")?)?;
        let (topic, partition) = form.needed("place")?.rsplit_once('/').unwrap_or_default();
        let partition = partition.parse().map_err(|_| {
            let why = "place is no partition: it is TOPIC/PARTITION, such as orders/3";
            Refusal::new(axum::http::StatusCode::BAD_REQUEST, why)
        })?;
        let to = form.needed("to")?;
        let to = to.parse().map(StartOffset::Offset).or_else(|_| place(to))?;
        let partition = TopicPartition::new(topic, partition);
        let offset = control.seek(&partition, to).await?;
        Ok(format!("{partition} of {} is read from offset {offset} on.", control.group()))
    };
    context.respond(HERE, seeking.await)
}

pub(super) async fn set_concurrency(
    State(controls): State<Controls>,
    context: Context,
    Posted(form): Posted,
) -> Response {
    let changed = || {
        let control = controls.find(form.needed("group")?)?;
        let concurrency = form.number("concurrency")?;
        control.set_concurrency(concurrency)?;
        Ok(format!("The concurrency of {} is {concurrency} now.", control.group()))
    };
    context.respond(HERE, changed())
}

fn subscription(context: &Context, control: &SubscriptionControl, health: Option<&SubscriptionHealth>) -> Markup {
    let (base, group) = (context.base(), control.group());
    let paused: Vec<_> = control.paused().iter().map(ToString::to_string).collect();
    let hidden = html! { (context.csrf()) input type="hidden" name="group" value=(group); };
    let partitions = health.map(|h| h.partitions.as_slice()).unwrap_or_default();
    html! {
        section aria-label={ "Group " (group) } {
            h2 { (group) }
            dl {
                @if let Some(health) = health {
                    div { dt { "State" } dd { (health.state) } }
                    div { dt { "Lag" } dd { (count(health.lag)) } }
                } @else { div { dt { "State" } dd { "ended" } } }
                div { dt { "Concurrency" } dd { (control.concurrency()) } }
                div { dt { "Paused" } dd { (or_dash(Some(paused.join(", ")).filter(|p| !p.is_empty()))) } }
            }
            div.row {
                form method="post" action={ (base) (HERE) "/pause" } { (hidden) button.plain { "Pause all" } }
                form method="post" action={ (base) (HERE) "/resume" } { (hidden) button.plain { "Resume all" } }
                form.row method="post" action={ (base) (HERE) "/concurrency" } {
                    (hidden)
                    label { "Concurrency "
                        input type="number" name="concurrency" min="1" required value=(control.concurrency()); }
                    button.plain { "Set" }
                }
            }
            @if !partitions.is_empty() {
                form.row method="post" action={ (base) (HERE) "/seek" } {
                    (hidden)
                    label { "Move " select name="place" { @for p in partitions {
                        @let place = format!("{}/{}", p.topic, p.partition);
                        option value=(place) { (place) }
                    } } }
                    label { "to " input name="to" required size="22" placeholder="beginning" autocomplete="off"
                        aria-describedby={ "places-" (group) }; }
                    button.plain { "Move" }
                }
                p.soft.hint id={ "places-" (group) } { "beginning, end, an offset, or a time such as 2026-01-31T12:00:00Z" }
                table aria-label={ "Partitions of " (group) } {
                    thead { tr {
                        th.fill scope="col" { "Partition" } th.n scope="col" { "Lag" } th.n.wide scope="col" { "Position" }
                        th scope="col" { "Control" }
                    } }
                    tbody { @for p in partitions.iter().take(MAX_ROWS) {
                        @let (is_paused, place) = (!p.paused_by.is_empty(), format!("{}/{}", p.topic, p.partition));
                        tr {
                            th scope="row" { (place) @if is_paused { " " small { "paused" } } }
                            td.n { (or_dash(p.lag.map(count))) }
                            td.n.wide { (if p.position < 0 { "-".to_owned() } else { count(p.position) }) }
                            td { form method="post" action={ (base) (HERE) (if is_paused { "/resume" } else { "/pause" }) } {
                                (hidden)
                                input type="hidden" name="topic" value=(p.topic);
                                input type="hidden" name="partition" value=(p.partition);
                                @let verb = if is_paused { "Resume" } else { "Pause" };
                                button.plain aria-label={ (verb) " " (place) } { (verb) }
                            } }
                        }
                    } }
                }
                @if partitions.len() > MAX_ROWS { p.soft { "and " (partitions.len() - MAX_ROWS) " more" } }
            }
        }
    }
}
