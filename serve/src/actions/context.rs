//! Access of a request, and the frame of each page.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::Actions;
use super::sessions::Session;
use crate::control::{Refusal, bearer, is_token};
use crate::page::Frame;

/// A request that may act.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// Path of the routes, relative to that of the page.
    base: String,
    /// Name of the page in the navigation.
    here: String,
    /// `None` for one who has sent the token itself, which no other site can.
    session: Option<Arc<Session>>,
}

/// Lets those in who have a session or the token; to others it shows where to enter it.
pub(super) async fn authorize(State(actions): State<Actions>, mut request: Request, next: Next) -> Response {
    // Where these routes are nested, the path begins behind that place.
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let base = "../".repeat(path.matches('/').count());
    let session = actions.0.sessions.find(request.headers());
    if session.is_none() && !is_token(&actions.0.token, bearer(request.headers()).unwrap_or_default()) {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let to = if request.method() == Method::GET { format!("{path}{query}") } else { "overview".to_owned() };
        return sign_in_page(&base, &to, false);
    }
    let here = path.split('/').next().unwrap_or_default().to_owned();
    request.extensions_mut().insert(Context { base, here, session });
    next.run(request).await
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get().cloned().ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl Context {
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    /// Returns whether a form with this secret comes from a page of the session.
    pub(super) fn is_sent_by_page(&self, csrf: &str) -> bool {
        self.session.as_ref().is_none_or(|session| session.is_csrf(csrf))
    }

    /// Returns the field that each form needs.
    pub(super) fn csrf(&self) -> Markup {
        html! { @if let Some(session) = &self.session { input type="hidden" name="csrf" value=(session.csrf()); } }
    }

    /// Returns a page.
    pub(super) fn page(&self, title: &str, content: &Markup) -> Response {
        let notice = self.session.as_ref().and_then(|session| session.take_notice());
        let body = html! {
            @if let Some(notice) = notice { p.notice role="status" { (notice) } }
            main { h1.title { (title) } (content) }
            footer { @if self.session.is_some() {
                form method="post" action={ (self.base) "sign-out" } { (self.csrf()) button.plain { "Sign out" } }
            } }
        };
        let frame = Frame { title, base: &self.base, here: Some(&self.here), script: None, has_forms: true };
        frame.response(&body)
    }

    /// Returns the response to an action: where it is done, the page to go to, relative to the routes, or the outcome as text.
    pub(super) fn respond(&self, to: &str, outcome: Result<String, Refusal>) -> Response {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => return self.refused(&refusal),
        };
        let Some(session) = &self.session else { return format!("{outcome}\n").into_response() };
        session.set_notice(outcome);
        (StatusCode::SEE_OTHER, [(LOCATION, format!("{}{to}", self.base))]).into_response()
    }

    /// Returns the response to what is refused.
    pub(super) fn refused(&self, Refusal(code, why): &Refusal) -> Response {
        if self.session.is_none() {
            return (*code, format!("{why}\n")).into_response();
        }
        let content = html! {
            p.alert role="alert" { (why) }
            p { a href={ (self.base) (self.here) } { "Back" } }
        };
        (*code, self.page("Not done", &content)).into_response()
    }
}

/// Returns whether a path is one of these pages, to which one may be sent after the sign-in.
pub(super) fn is_page(path: &str) -> bool {
    let rest = ["overview", "dead-letters", "subscriptions", "transactions"].iter().find_map(|p| path.strip_prefix(p));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        && path.is_ascii()
        && !path.contains(['\r', '\n'])
}

/// Returns the page on which the token is entered.
pub(super) fn sign_in_page(base: &str, to: &str, is_wrong: bool) -> Response {
    let here = to.split(['/', '?']).next().unwrap_or_default();
    let content = html! {
        main {
            h1.title { "Sign in" }
            @if is_wrong { p.alert role="alert" #wrong { "This is not the token." } }
            form.stack method="post" action={ (base) "sign-in" } {
                input type="hidden" name="to" value=(to);
                label for="token" { "Token of this process" }
                input #token type="password" name="token" required autocomplete="current-password" autofocus
                    aria-describedby=[is_wrong.then_some("wrong")];
                button { "Sign in" }
            }
        }
    };
    let frame = Frame { title: "Sign in", base, here: Some(here), script: None, has_forms: true };
    (StatusCode::UNAUTHORIZED, frame.response(&content)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_sign_in_one_stays_on_these_pages() {
        for good in ["overview", "dead-letters", "dead-letters/orders.dlq/0/17", "dead-letters/a?key=b%20c"] {
            assert!(is_page(good), "{good}");
        }
        for bad in
            ["", "/", "//evil", "https://evil", "overview:x", "dead-lettersx", "overview\r\nSet-Cookie: a=b", "../x"]
        {
            assert!(!is_page(bad), "{bad}");
        }
    }
}
