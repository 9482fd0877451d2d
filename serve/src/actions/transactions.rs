//! Transactions that hang: open in a partition, and no coordinator will end them.

use std::time::Duration;

use ailurus::admin::HangingTransaction;
use ailurus::{Admin, ErrorKind, TopicPartition};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::context::Context;
use super::form::Posted;
use super::{Actions, to_the_end};
use crate::control::Refusal;
use crate::text::{for_operators, thousands};

/// Page of the navigation.
const HERE: &str = "transactions";
/// Time for which the producer of a hanging transaction has written nothing: the brokers' default transaction.max.timeout.ms,
/// after which a coordinator ends a transaction that it has.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// Hanging transactions, and reasons why partitions were not examined.
type Found = (Vec<HangingTransaction>, Vec<String>);

pub(super) async fn list(State(actions): State<Actions>, context: Context) -> Response {
    let admin = Admin::new(actions.client());
    match actions.read("the open transactions", find(&admin)).await {
        Ok(found) => context.page("Transactions that hang", &content(&context, &found)),
        Err(e) => context.refused(&e),
    }
}

async fn find(admin: &Admin) -> ailurus::Result<Found> {
    let topics = admin.list_topics().await?;
    let all =
        topics.iter().flat_map(|t| t.partitions.iter().map(|p| TopicPartition::new(t.name.as_str(), p.partition)));
    let all: Vec<_> = all.collect();
    let (mut hanging, mut missing) = (Vec::new(), Vec::new());
    for (partition, outcome) in admin.find_hanging_transactions(&all, IDLE).await? {
        match outcome {
            Ok(found) => hanging.extend(found),
            Err(e) if e.is_unknown_topic() => {} // deleted since it was listed
            // All leaders refuse it.
            Err(e) if e.kind() == ErrorKind::Unsupported => return Err(e),
            Err(e) => missing.push(for_operators(&format!("{partition} was not examined: {e:#}"))),
        }
    }
    Ok((hanging, missing))
}

fn content(context: &Context, (hanging, missing): &Found) -> Markup {
    html! {
        @if !missing.is_empty() {
            ul.problems aria-label="Partitions that were not examined" {
                @for why in missing.iter().take(5) { li { (why) } }
                @if missing.len() > 5 { li { "and " (missing.len() - 5) " more" } }
            }
        }
        @if hanging.is_empty() {
            p.soft { "No transaction hangs: none is open that its coordinator does not have." }
        } @else {
            p.soft { "Readers of committed records stop before these." }
        }
        @for hung in hanging {
            @let t = &hung.transaction;
            section {
                h2 { (t.topic) "/" (t.partition) " from " (t.start_offset) }
                dl {
                    div { dt { "Transactional id" } dd { (hung.transactional_id.as_deref().unwrap_or("no coordinator knows one")) } }
                    div { dt { "Producer id" } dd { (t.producer_id) " epoch " (t.producer_epoch) } }
                    div { dt { "Idle for" } dd { (thousands(t.idle_for().as_secs() / 60)) " min" } }
                }
                form.stack method="post" action={ (context.base()) (HERE) "/abort" } {
                    (context.csrf())
                    input type="hidden" name="topic" value=(t.topic);
                    input type="hidden" name="partition" value=(t.partition);
                    input type="hidden" name="start-offset" value=(t.start_offset);
                    label.check { input type="checkbox" name="sure" value="yes" required;
                        "Its records are lost to readers of committed records" }
                    p.actions { button { "Abort it" } }
                }
            }
        }
    }
}

pub(super) async fn abort(State(actions): State<Actions>, context: Context, Posted(form): Posted) -> Response {
    let aborting = async {
        let partition = TopicPartition::new(form.needed("topic")?, form.number("partition")?);
        let start: i64 = form.number("start-offset")?;
        if form.get("sure") != Some("yes") {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the field sure is not yes: nothing was aborted"));
        }
        let admin = Admin::new(actions.client());
        to_the_end(async move { abort_hanging(&admin, &partition, start).await }).await
    };
    context.respond(HERE, aborting.await)
}

/// Aborts a transaction if it still hangs: one that a coordinator has is not ended here.
async fn abort_hanging(admin: &Admin, partition: &TopicPartition, start: i64) -> Result<String, Refusal> {
    let found = admin.find_hanging_transactions(std::slice::from_ref(partition), IDLE).await?;
    let hanging = found.into_values().collect::<ailurus::Result<Vec<_>>>()?;
    let Some(hung) = hanging.iter().flatten().find(|t| t.transaction.start_offset == start) else {
        let why =
            format!("no transaction of {partition} hangs from offset {start} on: it may have been ended meanwhile");
        return Err(Refusal::new(StatusCode::NOT_FOUND, why));
    };
    admin.abort_transaction(&hung.transaction).await?;
    tracing::info!(%partition, start, producer_id = hung.transaction.producer_id, "a hanging transaction was aborted on the page");
    Ok(format!("The transaction in {partition} from offset {start} on was aborted."))
}
