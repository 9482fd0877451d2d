//! A client and all that runs on it, as the [routes](crate::router) show it.

use std::fmt;
use std::sync::Arc;

use ailurus::consumer::ConsumerState;
use ailurus::health::SubscriptionHealth;
use ailurus::{Client, Health};

use crate::http::App;
use crate::lag::LagHistory;
use crate::metrics::Exposition;
use crate::text::health_for_operators;

/// An application that is ready while a broker responds and each of its consumers is a member of its group.
///
/// Brokers get requests once per second at most, however often it is looked at.
///
/// ```
/// use std::sync::Arc;
///
/// use ailurus::{Client, Config};
/// use ailurus_serve::ClientApp;
/// use ailurus_serve::metrics::Exposition;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ailurus::Result<()> {
/// let exposition = Exposition::new(env!("CARGO_PKG_VERSION"));
/// let client = Client::new(Config::builder().metrics(exposition.registry()).build()?);
/// let routes = ailurus_serve::router(Arc::new(ClientApp::new(&client, exposition)));
/// let app: axum::Router = axum::Router::new().nest("/kafka", routes);
/// # drop(app);
/// # Ok(())
/// # }
/// ```
pub struct ClientApp {
    client: Client,
    exposition: Exposition,
    lag: Arc<LagHistory>,
}

impl ClientApp {
    /// Shows what runs on a client, and the metrics of the exposition whose
    /// [registry](Exposition::registry) the client reports to. In a tokio runtime, the page has charts of the lag.
    pub fn new(client: &Client, exposition: Exposition) -> Self {
        Self { client: client.clone(), exposition, lag: LagHistory::of_client(client) }
    }
}

impl fmt::Debug for ClientApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientApp").finish_non_exhaustive()
    }
}

impl App for ClientApp {
    type Report = Health;

    async fn report(&self) -> Arc<Health> {
        Arc::new(health_for_operators(self.client.health().await))
    }

    async fn not_ready(&self) -> Vec<String> {
        let health = self.client.health().await;
        if health.is_reachable() { outside_groups(&health) } else { health.problems }
    }

    fn metrics(&self) -> &Exposition {
        &self.exposition
    }

    fn lag(&self) -> &LagHistory {
        &self.lag
    }
}

/// Returns the consumers that are not in their groups, with the reasons.
pub fn outside_groups(health: &Health) -> Vec<String> {
    let outside = health.subscriptions.iter().filter(|s| s.state != ConsumerState::Member);
    let reason = |s: &SubscriptionHealth| {
        let why = s.problem.as_ref().map(|problem| format!(", {problem}")).unwrap_or_default();
        format!("the consumer of group {:?} is {}{why}", s.group, s.state)
    };
    outside.map(reason).collect()
}
