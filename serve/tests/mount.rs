//! The routes of a client, nested in another application.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ailurus::{Client, Config};
use ailurus_serve::ClientApp;
use ailurus_serve::metrics::Exposition;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use tower::ServiceExt;

/// Returns an application whose client has an address at which nobody listens.
fn app(path: &str) -> Router {
    let exposition = Exposition::new("1.2.3");
    let config = Config::builder().brokers("127.0.0.1:1").metrics(exposition.registry()).build().unwrap();
    let routes = ailurus_serve::router(Arc::new(ClientApp::new(&Client::new(config), exposition)));
    Router::new().nest(path, routes)
}

async fn get(app: &Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn all_routes_are_below_the_path_where_they_are_mounted() {
    let app = app("/kafka");
    let (code, text) = get(&app, "/kafka/health/live").await;
    assert_eq!((code, text.as_str()), (StatusCode::OK, r#"{"status":"live"}"#));
    let (code, text) = get(&app, "/kafka/health/ready").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(text.contains("127.0.0.1:1"), "{text}");
    let (code, text) = get(&app, "/kafka/health/redpanda").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    let (code, text) = get(&app, "/kafka/metrics").await;
    assert_eq!(code, StatusCode::OK, "{text}");
    assert!(text.contains(r#"ailurus_build_info{version="1.2.3"} 1"#), "{text}");
    let (code, text) = get(&app, "/kafka/fragment").await;
    assert_eq!(code, StatusCode::OK, "{text}");
    assert_eq!(get(&app, "/health/live").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_page_finds_its_routes_with_and_without_a_slash_at_the_end() {
    for (path, base) in [("/kafka", "kafka/"), ("/kafka/", "")] {
        let app = app(path);
        let (code, page) = get(&app, path).await;
        assert_eq!(code, StatusCode::OK, "{path}");
        for name in ["fragment", "health/redpanda", "health/ready", "health/live"] {
            assert!(page.contains(&format!("\"{base}{name}\"")), "{path}: no {base}{name} in {page}");
        }
    }
}
