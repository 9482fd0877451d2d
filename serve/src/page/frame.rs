//! Frame of every page: head, navigation, and a policy that loads nothing from elsewhere.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("../page.css");

/// A page without its content.
pub(crate) struct Frame<'a> {
    pub(crate) title: &'a str,
    /// Path of the routes, relative to that of the page.
    pub(crate) base: &'a str,
    /// Name of the page in the navigation; `None` to have none.
    pub(crate) here: Option<&'a str>,
    /// A script, and true to reload the page where it does not run.
    pub(crate) script: Option<&'a str>,
    /// True if the page has forms.
    pub(crate) has_forms: bool,
}

/// Pages of the navigation: path and name.
const PAGES: [(&str, &str); 4] = [
    ("overview", "Overview"),
    ("dead-letters", "Dead letters"),
    ("subscriptions", "Subscriptions"),
    ("transactions", "Transactions"),
];

impl Frame<'_> {
    /// Returns the page with its content.
    pub(crate) fn response(&self, content: &Markup) -> Response {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        // The browser loads and runs nothing but what is in this page.
        let form = if self.has_forms { "'self'" } else { "'none'" };
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action {form}; frame-ancestors 'none'"
        );
        let headers = [
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::CACHE_CONTROL, "no-store".to_owned()),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
        ];
        (headers, Html(self.html(&nonce, content).into_string())).into_response()
    }

    pub(crate) fn html(&self, nonce: &str, content: &Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="robots" content="noindex";
                    @if self.script.is_some() { noscript { meta http-equiv="refresh" content="5"; } }
                    title { (self.title) " – ailurus" }
                    link rel="icon" href="data:,";
                    style nonce=(nonce) { (PreEscaped(STYLE)) }
                }
                body {
                    @if let Some(here) = self.here { (navigation(self.base, here)) }
                    (content)
                    @if let Some(script) = self.script { script nonce=(nonce) { (PreEscaped(script)) } }
                }
            }
        }
    }
}

fn navigation(base: &str, here: &str) -> Markup {
    html! {
        nav aria-label="Pages" {
            @for (path, name) in PAGES {
                @if path == here { a href={ (base) (path) } aria-current="page" { (name) } }
                @else { a href={ (base) (path) } { (name) } }
            }
        }
    }
}
