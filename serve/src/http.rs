//! The routes of an [`App`], and a server for an application that has no other routes.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ailurus::health::Status;
use axum::extract::{OriginalUri, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::actions::Actions;
use crate::lag::LagHistory;
use crate::metrics::Exposition;
use crate::page::{self, Report};
use crate::text::for_operators;

/// Reason for not being ready after the first signal.
pub const SHUTTING_DOWN: &str = "the process is shutting down";

/// An application, as its HTTP server sees it.
pub trait App: Send + Sync + 'static {
    /// State of the cluster and of the groups.
    type Report: Report;

    /// Returns the state as of now, or as it was a moment ago. Its texts are sent as they are: see
    /// [`health_for_operators`](crate::text::health_for_operators).
    fn report(&self) -> impl Future<Output = Arc<Self::Report>> + Send;

    /// Returns the reasons why the application does not do its work; none if it is ready.
    fn not_ready(&self) -> impl Future<Output = Vec<String>> + Send;

    /// Returns the metrics.
    fn metrics(&self) -> &Exposition;

    /// Returns the lag of its groups over time, for the page.
    fn lag(&self) -> &LagHistory;
}

/// An HTTP server that runs. Dropping it ends it without waiting for responses.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Listens, and serves the [`router`] of the application.
    ///
    /// # Errors
    /// If the address is in use or can't be listened on.
    pub async fn start<A: App>(listen: SocketAddr, app: Arc<A>) -> io::Result<Self> {
        Self::start_with(listen, router(app)).await
    }

    /// Listens, and serves these routes.
    ///
    /// # Errors
    /// If the address is in use or can't be listened on.
    pub async fn start_with(listen: SocketAddr, routes: Router) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("HTTP can't listen on {listen}: {e}"));
        let listener = TcpListener::bind(listen).await.map_err(named)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, routes).with_graceful_shutdown(async {
            let _ = stopped.await; // also if the sender was dropped
        });
        let task = tokio::spawn(async move { server.await });
        Ok(Self { address, stop, task })
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more requests, and waits for pending responses, up to the timeout.
    ///
    /// # Errors
    /// If the server had failed.
    pub async fn stop(self, timeout: Duration) -> io::Result<()> {
        drop(self.stop);
        match tokio::time::timeout(timeout, self.task).await {
            Ok(ended) => ended.map_err(io::Error::other)?,
            Err(_) => Ok(()),
        }
    }
}

/// Returns the routes of an application, to be served as they are or nested at a path:
///
/// | request | response |
/// |---|---|
/// | `GET /` | the [page] for people |
/// | `GET /health/live` | 200 while the process runs |
/// | `GET /health/ready` | 200, or 503 with the reasons |
/// | `GET /health/redpanda` | the [`Report`] as JSON; 503 while its status is `unhealthy` |
/// | `GET /metrics` | the [metrics](crate::metrics) |
///
/// See the [crate] for an example.
pub fn router<A: App>(app: Arc<A>) -> Router {
    routes(app, false)
}

/// Returns the routes of [`router`], and those of the [actions](Actions), for those who have the token.
///
/// ```no_run
/// # fn example(client: &ailurus::Client, subscription: &ailurus::Subscription, exposition: ailurus_serve::metrics::Exposition) {
/// use std::sync::Arc;
///
/// use ailurus::Secret;
/// use ailurus_serve::actions::Actions;
/// use ailurus_serve::{ClientApp, router_with_actions};
///
/// let actions = Actions::new(Secret::from(std::env::var("PAGE_TOKEN").unwrap_or_default()), client);
/// actions.add(subscription.control());
/// let routes = router_with_actions(Arc::new(ClientApp::new(client, exposition)), actions);
/// let app: axum::Router = axum::Router::new().nest("/kafka", routes);
/// # drop(app);
/// # }
/// ```
pub fn router_with_actions<A: App>(app: Arc<A>, actions: Actions) -> Router {
    routes(app, true).merge(actions.router())
}

fn routes<A: App>(app: Arc<A>, has_actions: bool) -> Router {
    let whole = move |State(app): State<Arc<A>>, OriginalUri(uri): OriginalUri| async move {
        // A browser at /kafka resolves names against /, at /kafka/ against /kafka/.
        let last = uri.path().rsplit('/').next().filter(|last| !last.is_empty());
        let base = last.map(|last| format!("{last}/")).unwrap_or_default();
        page::whole(&*app.report().await, app.lag(), &base, has_actions)
    };
    let overview =
        move |State(app): State<Arc<A>>| async move { page::whole(&*app.report().await, app.lag(), "", has_actions) };
    Router::new()
        .route("/health/live", get(async || Json(json!({"status": "live"}))))
        .route("/health/ready", get(ready::<A>))
        .route("/health/redpanda", get(redpanda::<A>))
        .route("/metrics", get(metrics::<A>))
        .route("/", get(whole))
        .route("/overview", get(overview)) // the same, at a path that other pages know wherever this is mounted
        .route("/fragment", get(fragment::<A>))
        .with_state(app)
}

async fn ready<A: App>(State(app): State<Arc<A>>) -> Response {
    let reasons = app.not_ready().await;
    if reasons.is_empty() {
        return Json(json!({"status": "ready"})).into_response();
    }
    let reasons: Vec<_> = reasons.iter().map(|reason| for_operators(reason)).collect();
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready", "reasons": reasons}))).into_response()
}

async fn redpanda<A: App>(State(app): State<Arc<A>>) -> Response {
    let report = app.report().await;
    let is_unhealthy = report.health().status == Status::Unhealthy;
    let code = if is_unhealthy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(&*report)).into_response()
}

async fn metrics<A: App>(State(app): State<Arc<A>>, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match app.metrics().text(accepted) {
        Ok((format, text)) => ([(CONTENT_TYPE, format)], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn fragment<A: App>(State(app): State<Arc<A>>) -> Response {
    page::fragment(&*app.report().await, app.lag())
}
