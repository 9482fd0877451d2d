//! Actions of operators on the page, with a token: look at dead letters, edit, replay and discard them; pause, resume and move
//! subscriptions; abort transactions that hang.
//!
//! The routes exist only where [`router_with_actions`](crate::router_with_actions) mounts them:
//!
//! | request | effect |
//! |---|---|
//! | `POST /sign-in` | begins a session of 12 hours with the token, a field of the form; `POST /sign-out` ends it |
//! | `GET /dead-letters`, `GET /dead-letters/{topic}` | dead-letter topics; the last 100 dead letters of one, also those of a key together |
//! | `GET /dead-letters/{topic}/{partition}/{offset}` | one in full, with a form to edit it |
//! | `POST /dead-letters/{topic}/replay`, `…/discard` | replays or discards dead letters, as `ailurus dlq` does |
//! | `GET /subscriptions`, `POST /subscriptions/pause`, `…/resume`, `…/seek`, `…/concurrency` | the subscriptions that were [added](Actions::add) |
//! | `GET /transactions`, `POST /transactions/abort` | transactions that hang |
//! | `/control` | the [routes for programs](crate::control) |
//!
//! All but the sign-in need a session, or the header `Authorization: Bearer TOKEN`, and say 401 without. A session is a cookie that
//! scripts and other sites don't get (`HttpOnly`, `SameSite=Strict`); each form has a second secret of the session, so that a
//! page of another site can't send one. The token is never in a URL. Sessions are in the memory of the process: they end with it.

mod context;
mod form;
mod letter_view;
mod letters;
mod payload;
mod sessions;
mod subscriptions;
mod transactions;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ailurus::processor::SubscriptionControl;
use ailurus::{Client, Secret};
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::Semaphore;

use crate::control::{self, Controls, Refusal, is_token};
use context::Context;
use form::{Form, Posted};
use sessions::Sessions;

/// Maximum time for what a page shows.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of dead-letter topics that are read at the same time.
const READERS: usize = 2;

/// The client and the subscriptions that operators act on. Cheap to clone.
///
/// ```no_run
/// # fn example(client: &ailurus::Client, subscription: &ailurus::Subscription) {
/// use ailurus_serve::actions::Actions;
///
/// let actions = Actions::new(ailurus::Secret::from("a long random token"), client);
/// actions.add(subscription.control());
/// # }
/// ```
#[derive(Clone)]
pub struct Actions(Arc<Inner>);

struct Inner {
    token: Secret,
    client: Client,
    controls: Controls,
    sessions: Sessions,
    readers: Semaphore,
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions").finish_non_exhaustive()
    }
}

impl Actions {
    /// Allows those who have the token to act through a client. An empty token lets nobody in.
    pub fn new(token: Secret, client: &Client) -> Self {
        let (controls, sessions) = (Controls::default(), Sessions::default());
        Self(Arc::new(Inner { token, client: client.clone(), controls, sessions, readers: Semaphore::new(READERS) }))
    }

    /// Adds a subscription. With two of one group the later one is controlled.
    pub fn add(&self, control: SubscriptionControl) {
        self.0.controls.add(control);
    }

    pub(crate) fn router(self) -> Router {
        let control = control::routes(self.0.token.clone(), self.0.controls.clone());
        Router::new()
            .route("/dead-letters", get(letters::topics))
            .route("/dead-letters/{topic}", get(letters::list))
            .route("/dead-letters/{topic}/{partition}/{offset}", get(letters::one))
            .route("/dead-letters/{topic}/replay", post(letters::replay))
            .route("/dead-letters/{topic}/discard", post(letters::discard))
            .route("/subscriptions", get(subscriptions::list))
            .route("/subscriptions/pause", post(subscriptions::pause))
            .route("/subscriptions/resume", post(subscriptions::resume))
            .route("/subscriptions/seek", post(subscriptions::seek))
            .route("/subscriptions/concurrency", post(subscriptions::set_concurrency))
            .route("/transactions", get(transactions::list))
            .route("/transactions/abort", post(transactions::abort))
            .route("/sign-out", post(sign_out))
            .layer(middleware::from_fn_with_state(self.clone(), context::authorize))
            .route("/sign-in", post(sign_in))
            .with_state(self)
            .nest("/control", control)
    }

    fn client(&self) -> &Client {
        &self.0.client
    }

    /// Reads within the time that a page may take, and not too many at a time.
    async fn read<T>(&self, what: &str, reading: impl Future<Output = ailurus::Result<T>>) -> Result<T, Refusal> {
        let bounded = async {
            let _slot = self.0.readers.acquire().await;
            reading.await
        };
        let late = || {
            let why =
                format!("{what} could not be read within {READ_TIMEOUT:?}; the command ailurus has no such limit");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)
        };
        Ok(tokio::time::timeout(READ_TIMEOUT, bounded).await.map_err(|_| late())??)
    }
}

/// Does something to its end, also if the browser goes away meanwhile.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |e: tokio::task::JoinError| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
    tokio::spawn(work).await.map_err(failed)?
}

impl FromRef<Actions> for Controls {
    fn from_ref(actions: &Actions) -> Self {
        actions.0.controls.clone()
    }
}

/// Begins a session.
async fn sign_in(State(actions): State<Actions>, form: Form) -> Response {
    let to = form.get("to").filter(|to| context::is_page(to)).unwrap_or("overview");
    if !is_token(&actions.0.token, form.get("token").unwrap_or_default().trim()) {
        tracing::warn!("a sign-in with a wrong token was refused");
        return context::sign_in_page("", to, true);
    }
    tracing::info!("an operator signed in");
    let cookie = actions.0.sessions.begin();
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, to.to_owned())]).into_response()
}

/// Ends the session.
async fn sign_out(State(actions): State<Actions>, context: Context, _: Posted) -> Response {
    let cookie = actions.0.sessions.end(context.session());
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, "overview".to_owned())]).into_response()
}
