//! The consumers while they run, and how ready they are.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ailurus::consumer::ConsumerState;
use ailurus::{Health, RedpandaService, Subscription};
use ailurus_serve::actions::Actions;
use ailurus_serve::client::{ClientApp, outside_groups};
use ailurus_serve::http::{App, SHUTTING_DOWN};
use ailurus_serve::lag::LagHistory;
use ailurus_serve::metrics::Exposition;
use ailurus_serve::signals::Shutdown;
use ailurus_serve::text::note;
use ailurus_shop::consumers::{spawn_analytics_consumer, spawn_stock_consumer};
use ailurus_shop::{Store, Topics};
use anyhow::{Context, bail};

use crate::CLOSE_TIMEOUT;

/// Time between two looks at the consumers' membership.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const STARTING: &str = "the consumers are being started";

/// Phase of the process. It is one value, so that no reader sees half of a change; nothing follows `Ending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The consumers are being started.
    Starting,
    /// The consumers run; `members` if both are members of their groups.
    Running { members: bool },
    /// The process ends, by a signal or because a consumer has ended.
    Ending,
}

impl Stage {
    fn then(self, next: Self) -> Self {
        if self == Self::Ending { Self::Ending } else { next }
    }
}

/// The shop's consumers, as their HTTP server sees them.
#[derive(Debug)]
pub struct Shop {
    service: RedpandaService,
    /// Health, metrics and lag, as every application has them.
    around: ClientApp,
    /// Actions of the page; `None` without a token.
    actions: Option<Actions>,
    stage: Mutex<Stage>,
    shutdown: Shutdown,
}

impl Shop {
    pub fn new(service: RedpandaService, around: ClientApp, actions: Option<Actions>, shutdown: Shutdown) -> Self {
        Self { service, around, actions, stage: Mutex::new(Stage::Starting), shutdown }
    }

    /// Consumes until a signal or the failure of a consumer, and shuts down.
    pub async fn run(&self, store: &Path) -> anyhow::Result<()> {
        let result = match Store::open(store).await {
            Ok(store) => {
                let result = self.consume(&store).await;
                store.close().await;
                result
            }
            Err(e) => Err(e.into()),
        };
        self.enter(Stage::Ending);
        result.and(self.service.close(CLOSE_TIMEOUT).await.map_err(Into::into))
    }

    /// Returns whether a second signal has come.
    pub fn is_cut_short(&self) -> bool {
        self.shutdown.is_cut_short()
    }

    async fn consume(&self, store: &Store) -> anyhow::Result<()> {
        let (service, topics) = (&self.service, Topics::default());
        let stock = tokio::select! {
            () = self.shutdown.requested() => return Ok(()),
            stock = spawn_stock_consumer(service, store.clone(), &topics) => stock?,
        };
        self.control(&stock);
        let mut subscriptions = vec![stock];
        let ended = tokio::select! {
            () = self.shutdown.requested() => Ok(()),
            analytics = spawn_analytics_consumer(service, store.clone(), &topics) => match analytics {
                Ok(analytics) => {
                    self.control(&analytics);
                    subscriptions.push(analytics);
                    self.watch(&subscriptions).await
                }
                Err(e) => Err(e.into()),
            },
        };
        self.enter(Stage::Ending);
        ended.and(shut_down(subscriptions, &self.shutdown).await)
    }

    /// Lets those with the token control a consumer.
    fn control(&self, consumer: &Subscription) {
        if let Some(actions) = &self.actions {
            actions.add(consumer.control());
        }
    }

    /// Waits for a signal or for the end of a consumer.
    async fn watch(&self, subscriptions: &[Subscription]) -> anyhow::Result<()> {
        let [stock, analytics] = subscriptions else { return Ok(()) };
        let (name, ended) = tokio::select! {
            () = self.shutdown.requested() => return Ok(()),
            ended = stock.ended() => ("stock", ended),
            ended = analytics.ended() => ("analytics", ended),
            () = self.watch_members(subscriptions) => return Ok(()),
        };
        ended.with_context(|| format!("the {name} consumer"))?;
        bail!("the {name} consumer ended")
    }

    /// Keeps `members` up to date; never ends.
    async fn watch_members(&self, subscriptions: &[Subscription]) {
        loop {
            let members = subscriptions.iter().all(|s| s.health().state == ConsumerState::Member);
            let was = self.enter(Stage::Running { members });
            if (was == Stage::Running { members: true }) != members {
                note(format_args!("{}", if members { "ready" } else { "not ready: a consumer is not in its group" }));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Enters a stage, unless the process is ending, and returns the one before.
    fn enter(&self, next: Stage) -> Stage {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *stage;
        *stage = before.then(next);
        before
    }

    fn stage(&self) -> Stage {
        // The signal comes before all that follows from it.
        if self.shutdown.is_requested() {
            Stage::Ending
        } else {
            *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// Shuts all subscriptions down side by side, and prints the number of records that they left.
async fn shut_down(subscriptions: Vec<Subscription>, shutdown: &Shutdown) -> anyhow::Result<()> {
    let ending: Vec<_> = subscriptions
        .into_iter()
        .map(|s| (s.health().group, tokio::spawn(s.run_until(std::future::ready(()), shutdown.cut_short()))))
        .collect();
    let mut result = Ok(());
    for (group, task) in ending {
        let ended = task.await?;
        match ended {
            Ok(left) if left.is_empty() => {}
            Ok(left) => note(format_args!("group {group} ended with records left: {left}")),
            Err(e) => result = result.and(Err(e.into())),
        }
    }
    result
}

impl App for Shop {
    type Report = Health;

    async fn report(&self) -> Arc<Health> {
        self.around.report().await
    }

    async fn not_ready(&self) -> Vec<String> {
        if self.stage() == Stage::Ending {
            return not_ready(Stage::Ending, None);
        }
        // A group finds out only after the session timeout that its brokers are down: they get a request.
        let health = self.service.health().await;
        // Read after the wait: the end may have begun meanwhile.
        not_ready(self.stage(), Some(&health))
    }

    fn metrics(&self) -> &Exposition {
        self.around.metrics()
    }

    fn lag(&self) -> &LagHistory {
        self.around.lag()
    }
}

/// Returns the reasons why a process in this stage, on a cluster of this health, is not ready.
fn not_ready(stage: Stage, health: Option<&Health>) -> Vec<String> {
    match (stage, health) {
        (Stage::Ending, _) => vec![SHUTTING_DOWN.to_owned()],
        (_, Some(health)) if !health.is_reachable() => health.problems.clone(),
        (Stage::Running { members: true }, _) => Vec::new(),
        (_, Some(health)) => match outside_groups(health) {
            reasons if reasons.is_empty() => vec![STARTING.to_owned()],
            reasons => reasons,
        },
        (_, None) => vec![STARTING.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn health(up: bool, state: &str) -> Health {
        let broker = json!({
            "id": 1, "address": "127.0.0.1:9092", "status": if up { "up" } else { "down" }, "latencyMs": null,
            "error": if up { json!(null) } else { json!("127.0.0.1:9092: refused the connection") },
        });
        let subscription = json!({
            "group": "g", "topics": ["t"], "state": state, "stateMs": 1, "memberId": null, "generation": null,
            "activity": "idle", "lag": 0, "partitions": [],
        });
        let problems = if up { json!([]) } else { json!(["127.0.0.1:9092: refused the connection"]) };
        let all = json!({
            "status": "degraded", "problems": problems, "ageMs": 0, "clusterId": null, "controllerId": null,
            "brokers": [broker], "topics": [], "subscriptions": [subscription],
        });
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_process_that_ends_is_shutting_down() {
        for (up, state) in [(true, "member"), (true, "closed"), (true, "joining"), (false, "member")] {
            let reasons = not_ready(Stage::Ending, Some(&health(up, state)));
            assert_eq!(reasons, [SHUTTING_DOWN], "{up} {state}");
        }
        for next in [Stage::Starting, Stage::Running { members: true }, Stage::Running { members: false }] {
            assert_eq!(Stage::Ending.then(next), Stage::Ending, "nothing comes after the end");
            assert_eq!(next.then(Stage::Ending), Stage::Ending);
        }
    }

    #[test]
    fn not_ready_has_reasons() {
        let running = |members| Stage::Running { members };
        assert!(not_ready(running(true), Some(&health(true, "member"))).is_empty());
        assert_eq!(not_ready(Stage::Starting, Some(&health(true, "member"))), [STARTING]);
        let outside = not_ready(running(false), Some(&health(true, "joining")));
        assert_eq!(outside, ["the consumer of group \"g\" is joining"]);
        for stage in [Stage::Starting, running(true), running(false)] {
            assert!(not_ready(stage, Some(&health(false, "member")))[0].contains("refused"), "{stage:?}");
        }
    }
}
