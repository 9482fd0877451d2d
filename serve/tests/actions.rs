//! Actions on the page: with the token, without it, and with wrong forms.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use ailurus::{Client, Config, Headers, Message, ProducerRecord, Secret, StartOffset, Timestamp, TopicPartition};
use ailurus_broker::{Broker, BrokerConfig, Fault, RequestInfo, Versions};
use ailurus_serve::actions::Actions;
use ailurus_serve::metrics::Exposition;
use ailurus_serve::{ClientApp, router_with_actions};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use tower::ServiceExt;

const TOKEN: &str = "a-token-of-enough-length";
/// A name that is HTML if it is not escaped.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";

/// An application at /kafka on a broker in memory.
struct Bed {
    broker: Option<Broker>,
    client: Client,
    actions: Actions,
    app: Router,
}

struct Page {
    code: StatusCode,
    location: String,
    cookie: String,
    text: String,
}

impl Page {
    /// Returns the secret that its forms have.
    fn csrf(&self) -> String {
        let after =
            self.text.split("name=\"csrf\" value=\"").nth(1).unwrap_or_else(|| panic!("no form in {}", self.text));
        after.split('"').next().unwrap().to_owned()
    }

    fn has(&self, code: StatusCode, texts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.text);
        for text in texts {
            assert!(self.text.contains(text), "no {text:?} in {}", self.text);
        }
    }
}

impl Bed {
    async fn new() -> Self {
        let broker = Broker::start(BrokerConfig::default().versions(Versions::kafka())).await.unwrap();
        let config = Config::builder().brokers(broker.bootstrap()).build().unwrap();
        let client = Client::connect(config).await.unwrap();
        let actions = Actions::new(Secret::from(TOKEN), &client);
        let app = app(&client, actions.clone());
        Self { broker: Some(broker), client, actions, app }
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().unwrap()
    }

    async fn send(&self, method: &str, path: &str, headers: &[(header::HeaderName, &str)], body: &str) -> Page {
        let mut request = Request::builder().method(method).uri(format!("/kafka{path}"));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let response = self.app.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let of = |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let (code, location, cookie) = (response.status(), of(header::LOCATION), of(header::SET_COOKIE));
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Page { code, location, cookie, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    /// Signs in; returns the cookie.
    async fn sign_in(&self) -> String {
        let form = [(header::CONTENT_TYPE, FORM)];
        let page = self.send("POST", "/sign-in", &form, &format!("token={TOKEN}&to=dead-letters")).await;
        assert_eq!((page.code, page.location.as_str()), (StatusCode::SEE_OTHER, "dead-letters"));
        assert!(page.cookie.contains("; HttpOnly; SameSite=Strict"), "{}", page.cookie);
        page.cookie.split(';').next().unwrap().to_owned()
    }

    async fn get(&self, cookie: &str, path: &str) -> Page {
        self.send("GET", path, &[(header::COOKIE, cookie)], "").await
    }

    /// Sends a form of a page of the session.
    async fn post(&self, cookie: &str, path: &str, fields: &str) -> Page {
        let csrf = self.get(cookie, "/transactions").await.csrf();
        let headers = [(header::COOKIE, cookie), (header::CONTENT_TYPE, FORM)];
        self.send("POST", path, &headers, &format!("{fields}&csrf={csrf}")).await
    }

    /// Sends a form with the token in the header.
    async fn post_with_token(&self, path: &str, fields: &str) -> Page {
        let token = format!("Bearer {TOKEN}");
        self.send("POST", path, &[(header::AUTHORIZATION, &token), (header::CONTENT_TYPE, FORM)], fields).await
    }

    /// Writes a dead letter of `orders`.
    async fn dead_letter(&self, dlq: &str, key: &str, value: &[u8], error: &str, headers: Headers) {
        let headers = headers.with("dlq-error", error).with("dlq-topic", "orders").with("dlq-partition", "0");
        let headers = headers.with("dlq-offset", "42").with("dlq-attempts", "4").with("dlq-group", "billing");
        let producer = self.client.producer().start().unwrap();
        let record = ProducerRecord::to(dlq).key(key).value(value).headers(headers);
        producer.send(record).await.unwrap().await.unwrap();
        producer.close(std::time::Duration::from_secs(30)).await.unwrap();
    }

    /// Returns the values and headers of `orders`.
    async fn replayed(&self) -> Vec<(Option<Vec<u8>>, Headers)> {
        let at = TopicPartition::new("orders", 0);
        let admin = ailurus::Admin::new(&self.client);
        let end = admin.list_offsets(std::slice::from_ref(&at), StartOffset::Latest).await.unwrap()[&at];
        let mut consumer = self.client.reader().assign([(at, StartOffset::Earliest)]).await.unwrap();
        let mut found = Vec::new();
        while found.len() < usize::try_from(end).unwrap() {
            if let ailurus::ConsumerEvent::Records(records) = consumer.recv().await.unwrap() {
                found.extend(records.records.iter().map(|r| (r.value.as_ref().map(|v| v.to_vec()), r.headers.clone())));
            }
        }
        consumer.close().await.unwrap();
        found
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn app(client: &Client, actions: Actions) -> Router {
    let around = Arc::new(ClientApp::new(client, Exposition::new("1.2.3")));
    Router::new().nest("/kafka", router_with_actions(around, actions))
}

async fn bed_with_letters() -> Bed {
    let bed = Bed::new().await;
    bed.broker().create_topic("orders", 1).unwrap();
    bed.broker().create_topic("orders.dlq", 1).unwrap();
    bed
}

const ACTIONS: [&str; 8] = [
    "/dead-letters/orders.dlq/replay",
    "/dead-letters/orders.dlq/discard",
    "/subscriptions/pause",
    "/subscriptions/resume",
    "/subscriptions/seek",
    "/subscriptions/concurrency",
    "/transactions/abort",
    "/sign-out",
];

#[tokio::test]
async fn nothing_is_shown_or_done_without_the_token() {
    let bed = bed_with_letters().await;
    bed.dead_letter("orders.dlq", "k", b"secret payload", "boom", Headers::new()).await;
    let pages = [
        "/dead-letters",
        "/dead-letters/orders.dlq",
        "/dead-letters/orders.dlq/0/0",
        "/subscriptions",
        "/transactions",
    ];
    for wrong in ["", "ailurus_session=", "ailurus_session=0123456789abcdef0123456789abcdef"] {
        for path in pages {
            let page = bed.get(wrong, path).await;
            page.has(StatusCode::UNAUTHORIZED, &["name=\"token\""]);
            assert!(!page.text.contains("secret payload") && !page.text.contains("orders/0@42"), "{}", page.text);
        }
        for path in ACTIONS {
            let headers = [(header::COOKIE, wrong), (header::CONTENT_TYPE, FORM)];
            assert_eq!(bed.send("POST", path, &headers, "at=0/0").await.code, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    for token in ["", "a-token", "a-token-of-enough-length2"] {
        let form = [(header::CONTENT_TYPE, FORM)];
        let page = bed.send("POST", "/sign-in", &form, &format!("token={token}&to=dead-letters")).await;
        page.has(StatusCode::UNAUTHORIZED, &["This is not the token."]);
        assert_eq!(page.cookie, "");
        let bearer = format!("Bearer {token}");
        assert_eq!(bed.send("GET", "/dead-letters", &[(header::AUTHORIZATION, &bearer)], "").await.code, 401);
    }
    // A token in the URL is none.
    assert_eq!(bed.get("", &format!("/dead-letters?token={TOKEN}")).await.code, StatusCode::UNAUTHORIZED);
    assert_eq!(bed.replayed().await.len(), 0);
    bed.client.close().await;
}

#[tokio::test]
async fn a_form_that_another_site_sends_is_refused() {
    let bed = bed_with_letters().await;
    bed.dead_letter("orders.dlq", "k", b"v", "boom", Headers::new()).await;
    let cookie = bed.sign_in().await;
    let other = bed.sign_in().await;
    let of_other = bed.get(&other, "/transactions").await.csrf();
    for path in ACTIONS {
        for csrf in ["", &of_other] {
            let headers = [(header::COOKIE, cookie.as_str()), (header::CONTENT_TYPE, FORM)];
            let page = bed.send("POST", path, &headers, &format!("at=0/0&csrf={csrf}")).await;
            page.has(StatusCode::FORBIDDEN, &["this form is not of your session"]);
        }
        // Nothing changes by following a link.
        assert_eq!(bed.get(&cookie, path).await.code, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let json = [(header::COOKIE, cookie.as_str()), (header::CONTENT_TYPE, "text/plain")];
        assert_eq!(bed.send("POST", path, &json, "at=0/0").await.code, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
    }
    assert_eq!(bed.replayed().await.len(), 0);
    bed.client.close().await;
}

#[tokio::test]
async fn an_empty_token_lets_nobody_in() {
    let client = Client::new(Config::default());
    let actions = Actions::new(Secret::default(), &client);
    let bed = Bed { broker: None, app: app(&client, actions.clone()), client, actions };
    let form = [(header::CONTENT_TYPE, FORM)];
    assert_eq!(bed.send("POST", "/sign-in", &form, "token=").await.code, StatusCode::UNAUTHORIZED);
    assert_eq!(bed.send("GET", "/transactions", &[(header::AUTHORIZATION, "Bearer ")], "").await.code, 401);
}

#[tokio::test]
async fn one_comes_back_to_the_page_before_the_sign_in_and_leaves_by_signing_out() {
    let bed = bed_with_letters().await;
    bed.get("", "/dead-letters/orders.dlq?key=a%20b").await.has(
        StatusCode::UNAUTHORIZED,
        &["action=\"../sign-in\"", "name=\"to\" value=\"dead-letters/orders.dlq?key=a%20b\""],
    );
    let form = [(header::CONTENT_TYPE, FORM)];
    let page = bed.send("POST", "/sign-in", &form, &format!("token={TOKEN}&to=https://evil.example")).await;
    assert_eq!(page.location, "overview", "not to another site");
    bed.get("", "/overview").await.has(StatusCode::OK, &["href=\"dead-letters\"", "data-fragment=\"fragment\""]);
    let cookie = bed.sign_in().await;
    bed.get(&cookie, "/dead-letters").await.has(StatusCode::OK, &["href=\"dead-letters/orders%2Edlq\"", "Sign out"]);
    let page = bed.post(&cookie, "/sign-out", "").await;
    assert_eq!((page.code, page.location.as_str()), (StatusCode::SEE_OTHER, "overview"));
    assert_eq!(bed.get(&cookie, "/dead-letters").await.code, StatusCode::UNAUTHORIZED);
    bed.client.close().await;
}

#[tokio::test]
async fn dead_letters_are_listed_by_key_and_shown_in_full() {
    let bed = bed_with_letters().await;
    let headers = Headers::new().with("tenant", "berlin");
    bed.dead_letter("orders.dlq", "a", br#"{"total":1.0e2}"#, "no stock", headers.clone()).await;
    bed.dead_letter("orders.dlq", "b", b"plain", "boom", headers.clone()).await;
    bed.dead_letter("orders.dlq", "a", b"\xff\x00", "no stock", headers).await;
    let cookie = bed.sign_in().await;
    let list = bed.get(&cookie, "/dead-letters/orders.dlq").await;
    list.has(StatusCode::OK, &["no stock", "boom", "key a", "from orders/0@42", "value=\"0/2\""]);
    let by_key = bed.get(&cookie, "/dead-letters/orders.dlq?by-key=on").await;
    by_key.has(StatusCode::OK, &["Key a</th>", "Key b</th>"]);
    assert_eq!(by_key.text.matches("scope=\"rowgroup\"").count(), 2, "{}", by_key.text);
    let filtered = bed.get(&cookie, "/dead-letters/orders.dlq?error=stock&key=a").await;
    assert_eq!(filtered.text.matches("name=\"at\"").count(), 2, "{}", filtered.text);
    bed.get(&cookie, "/dead-letters/orders.dlq?error=none").await.has(StatusCode::OK, &["No dead letter matches."]);
    let json = bed.get(&cookie, "/dead-letters/orders.dlq/0/0").await;
    json.has(
        StatusCode::OK,
        &["JSON, 15 bytes", "&quot;total&quot;: 1.0e2", "tenant", "berlin", "billing", "Replay to orders"],
    );
    bed.get(&cookie, "/dead-letters/orders.dlq/0/1").await.has(StatusCode::OK, &["text, 5 bytes", ">plain</pre>"]);
    bed.get(&cookie, "/dead-letters/orders.dlq/0/2")
        .await
        .has(StatusCode::OK, &["bytes, 2 bytes", ">ff 00</pre>", "<option value=\"hex\" selected>"]);
    for (path, code) in [
        ("/dead-letters/orders.dlq/0/99", StatusCode::NOT_FOUND),
        ("/dead-letters/orders.dlq/7/0", StatusCode::NOT_FOUND),
        ("/dead-letters/orders.dlq/a/0", StatusCode::BAD_REQUEST),
        ("/dead-letters/orders.dlq/0/-1", StatusCode::BAD_REQUEST),
        ("/dead-letters/none.dlq", StatusCode::NOT_FOUND),
        ("/dead-letters/orders", StatusCode::NOT_FOUND),
    ] {
        bed.get(&cookie, path).await.has(code, &["role=\"alert\""]);
    }
    bed.client.close().await;
}

#[tokio::test]
async fn a_dead_letter_is_edited_and_replayed_once() {
    let bed = bed_with_letters().await;
    let headers = Headers::new().with("tenant", "berlin").with("tenant", "paris").with("trace", "1");
    bed.dead_letter("orders.dlq", "k", b"bad\nvalue", "boom", headers).await;
    let cookie = bed.sign_in().await;
    let edit = "at=0/0&encoding=text&value=good%0D%0Avalue&remove=tenant&header-name=fixed&header-value=by+hand";
    let page = bed.post(&cookie, "/dead-letters/orders.dlq/replay", edit).await;
    assert_eq!(
        (page.code, page.location.as_str()),
        (StatusCode::SEE_OTHER, "../../dead-letters/orders%2Edlq"),
        "{}",
        page.text
    );
    bed.get(&cookie, "/dead-letters/orders.dlq").await.has(
        StatusCode::OK,
        &["role=\"status\"", "orders.dlq/0@0 was replayed to orders/0@0", "No dead letter matches."],
    );
    let replayed = bed.replayed().await;
    let [(value, headers)] = &replayed[..] else { panic!("{replayed:?}") };
    assert_eq!(value.as_deref(), Some(&b"good\nvalue"[..]));
    assert_eq!((headers.get_str("tenant"), headers.get_str("trace")), (None, Some("1")));
    assert_eq!((headers.get_str("fixed"), headers.get_str("dlq-replays")), (Some("by hand"), Some("1")));
    let again = bed.post(&cookie, "/dead-letters/orders.dlq/replay", "at=0/0").await;
    again.has(StatusCode::CONFLICT, &["orders.dlq/0@0 is replayed already"]);
    bed.get(&cookie, "/dead-letters/orders.dlq?all=on").await.has(StatusCode::OK, &[", replayed"]);
    assert_eq!(bed.replayed().await.len(), 1);
    bed.client.close().await;
}

#[tokio::test]
async fn several_dead_letters_are_replayed_or_discarded_and_limits_hold() {
    let bed = bed_with_letters().await;
    for (key, replays) in [("a", "0"), ("b", "2"), ("c", "3"), ("d", "0")] {
        bed.dead_letter("orders.dlq", key, b"v", "boom", Headers::new().with("dlq-replays", replays)).await;
    }
    let page = bed.post_with_token("/dead-letters/orders.dlq/discard", "at=0/3").await;
    page.has(StatusCode::OK, &["orders.dlq/0@3 was discarded."]);
    let page = bed.post_with_token("/dead-letters/orders.dlq/replay", "at=0/0&at=0/1&at=0/2&at=0/3").await;
    page.has(
        StatusCode::OK,
        &[
            "2 dead letters were replayed",
            "orders.dlq/0@2 was not replayed: it was replayed 3 times",
            "0@3 is discarded already",
        ],
    );
    assert_eq!(bed.replayed().await.len(), 2);
    let page = bed.post_with_token("/dead-letters/orders.dlq/discard", "at=0/3").await;
    page.has(StatusCode::CONFLICT, &["orders.dlq/0@3 is discarded already"]);
    bed.client.close().await;
}

#[tokio::test]
async fn forms_that_are_wrong_change_nothing() {
    let bed = bed_with_letters().await;
    bed.dead_letter("orders.dlq", "k", b"v", "boom", Headers::new()).await;
    bed.dead_letter("orders.dlq", "k", b"w", "boom", Headers::new()).await;
    let many = (0..101).map(|n| format!("at=0/{n}&")).collect::<String>();
    for (path, fields, code, text) in [
        ("/dead-letters/orders.dlq/replay", "", StatusCode::BAD_REQUEST, "no dead letter is chosen"),
        ("/dead-letters/orders.dlq/replay", "at=17", StatusCode::BAD_REQUEST, "PARTITION/OFFSET"),
        ("/dead-letters/orders.dlq/replay", &many, StatusCode::BAD_REQUEST, "at most 100"),
        ("/dead-letters/orders.dlq/replay", "at=0/9", StatusCode::NOT_FOUND, "there is no dead letter"),
        (
            "/dead-letters/orders.dlq/replay",
            "at=0/0&encoding=hex&value=0g",
            StatusCode::BAD_REQUEST,
            "no hexadecimal digit",
        ),
        ("/dead-letters/orders.dlq/replay", "at=0/0&encoding=x", StatusCode::BAD_REQUEST, "encoding is"),
        (
            "/dead-letters/orders.dlq/replay",
            "at=0/0&at=0/1&remove=a",
            StatusCode::BAD_REQUEST,
            "one dead letter at a time",
        ),
        ("/dead-letters/orders/replay", "at=0/0", StatusCode::NOT_FOUND, "is no dead-letter topic"),
        ("/dead-letters/none.dlq/discard", "at=0/0", StatusCode::NOT_FOUND, "none.dlq"),
        ("/dead-letters/orders.dlq/discard", "at=0/9", StatusCode::NOT_FOUND, "there is no dead letter"),
        ("/subscriptions/pause", "", StatusCode::BAD_REQUEST, "the field group is missing"),
        ("/subscriptions/pause", "group=none", StatusCode::NOT_FOUND, "no subscription of group"),
        ("/transactions/abort", "topic=orders&partition=x&start-offset=1", StatusCode::BAD_REQUEST, "partition is"),
        ("/transactions/abort", "topic=orders&partition=0&start-offset=1", StatusCode::BAD_REQUEST, "sure is not yes"),
        (
            "/transactions/abort",
            "topic=orders&partition=0&start-offset=1&sure=yes",
            StatusCode::NOT_FOUND,
            "no transaction",
        ),
    ] {
        bed.post_with_token(path, fields).await.has(code, &[text]);
    }
    assert_eq!(bed.replayed().await.len(), 0);
    bed.client.close().await;
}

#[tokio::test]
async fn what_comes_from_records_is_escaped() {
    let bed = bed_with_letters().await;
    let headers = Headers::new().with(HOSTILE, HOSTILE);
    bed.dead_letter("orders.dlq", HOSTILE, HOSTILE.as_bytes(), HOSTILE, headers.clone()).await;
    bed.dead_letter("orders.dlq", "k", format!("{{\"a\":\"</textarea>{}\"}}", "<b>").as_bytes(), "boom", headers).await;
    let cookie = bed.sign_in().await;
    let hostile_topic = "/dead-letters/%3Cimg%20src%3Dx%3E.dlq";
    for path in [
        "/dead-letters/orders.dlq",
        "/dead-letters/orders.dlq?by-key=on",
        "/dead-letters/orders.dlq?error=%3Cimg%20src=x%3E&key=%22%3E%3Cimg",
        "/dead-letters/orders.dlq/0/0",
        "/dead-letters/orders.dlq/0/1",
        hostile_topic,
    ] {
        let page = bed.get(&cookie, path).await;
        for bad in ["<img", "<b>", "</textarea>&lt;b", "onerror=alert(1)>", "\"\">"] {
            assert!(!page.text.contains(bad), "{bad:?} at {path}: {}", page.text);
        }
    }
    let page = bed.get(&cookie, "/dead-letters/orders.dlq/0/0").await;
    assert!(page.text.matches("&lt;img src=x onerror=alert(1)&gt;").count() >= 6, "{}", page.text);
    bed.client.close().await;
}

#[tokio::test]
async fn a_subscription_is_paused_moved_and_changed_by_its_buttons() {
    let bed = bed_with_letters().await;
    let handler = |message: Message| async move { drop(message) };
    let subscription = bed.client.processor("billing").subscribe(["orders"], handler).await.unwrap();
    subscription.control().caught_up().await.unwrap();
    bed.actions.add(subscription.control());
    let cookie = bed.sign_in().await;
    let page = bed.get(&cookie, "/subscriptions").await;
    page.has(StatusCode::OK, &["billing", "orders/0", "aria-label=\"Pause orders/0\"", "name=\"concurrency\""]);
    let page = bed.post(&cookie, "/subscriptions/pause", "group=billing&topic=orders&partition=0").await;
    assert_eq!((page.code, page.location.as_str()), (StatusCode::SEE_OTHER, "../subscriptions"));
    assert_eq!(subscription.control().paused().len(), 1);
    bed.get(&cookie, "/subscriptions").await.has(StatusCode::OK, &["Paused: orders/0 of billing."]);
    bed.post(&cookie, "/subscriptions/resume", "group=billing").await;
    assert_eq!(subscription.control().paused(), []);
    bed.post(&cookie, "/subscriptions/concurrency", "group=billing&concurrency=3").await;
    assert_eq!(subscription.control().concurrency(), 3);
    bed.post(&cookie, "/subscriptions/seek", "group=billing&place=orders/0&to=beginning").await;
    bed.get(&cookie, "/subscriptions").await.has(StatusCode::OK, &["orders/0 of billing is read from offset 0 on."]);
    for (path, fields, code) in [
        ("pause", "group=billing&partition=0", StatusCode::BAD_REQUEST),
        ("pause", "group=billing&topic=orders&partition=x", StatusCode::BAD_REQUEST),
        ("pause", "group=billing&topic=orders&partition=7", StatusCode::CONFLICT),
        ("concurrency", "group=billing&concurrency=0", StatusCode::BAD_REQUEST),
        ("concurrency", "group=billing", StatusCode::BAD_REQUEST),
        ("seek", "group=billing&place=orders&to=end", StatusCode::BAD_REQUEST),
        ("seek", "group=billing&place=orders/0&to=soon", StatusCode::BAD_REQUEST),
        ("seek", "group=billing&place=orders/0&to=99", StatusCode::BAD_REQUEST),
    ] {
        bed.post(&cookie, &format!("/subscriptions/{path}"), fields).await.has(code, &["role=\"alert\""]);
    }
    let token = format!("Bearer {TOKEN}");
    let listed = bed.send("GET", "/control", &[(header::AUTHORIZATION, &token)], "").await;
    listed.has(StatusCode::OK, &[r#"{"concurrency":3,"group":"billing","paused":[]}"#]);
    assert_eq!(bed.get(&cookie, "/control").await.code, StatusCode::UNAUTHORIZED, "for programs");
    subscription.shutdown().await.unwrap();
    bed.post(&cookie, "/subscriptions/pause", "group=billing").await.has(StatusCode::CONFLICT, &["has ended"]);
    bed.client.close().await;
}

#[tokio::test]
async fn a_transaction_that_hangs_is_listed_and_aborted() {
    /// API whose response decides whether a transaction hangs.
    const DESCRIBE_TRANSACTIONS: i16 = 65;
    const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;
    let bed = bed_with_letters().await;
    let cookie = bed.sign_in().await;
    bed.get(&cookie, "/transactions").await.has(StatusCode::OK, &["No transaction hangs"]);
    let mut producer = bed.client.transactional_producer("billing-1").start().await.unwrap();
    let transaction = producer.begin().await.unwrap();
    let long_ago = Timestamp::from_millis(Timestamp::now().as_millis() - 20 * 60_000);
    let record = ProducerRecord::to("orders").value("open").timestamp(long_ago);
    transaction.send(record).await.unwrap().await.unwrap();
    bed.get(&cookie, "/transactions").await.has(StatusCode::OK, &["No transaction hangs"]);
    let abort = "topic=orders&partition=0&start-offset=0&sure=yes";
    let page = bed.post(&cookie, "/transactions/abort", abort).await;
    page.has(StatusCode::NOT_FOUND, &["no transaction of orders/0 hangs from offset 0 on"]);
    let forget = |request: &RequestInfo<'_>| {
        (request.api_key == DESCRIBE_TRANSACTIONS).then_some(Fault::Error(TRANSACTIONAL_ID_NOT_FOUND))
    };
    bed.broker().set_hook(forget);
    bed.get(&cookie, "/transactions")
        .await
        .has(StatusCode::OK, &["orders/0 from 0", "name=\"sure\"", "no coordinator knows one"]);
    let page = bed.post(&cookie, "/transactions/abort", abort).await;
    assert_eq!((page.code, page.location.as_str()), (StatusCode::SEE_OTHER, "../transactions"), "{}", page.text);
    bed.get(&cookie, "/transactions")
        .await
        .has(StatusCode::OK, &["The transaction in orders/0 from offset 0 on was aborted.", "No transaction hangs"]);
    drop(transaction);
    bed.client.close().await;
}

#[tokio::test]
async fn without_a_broker_pages_say_so() {
    let config = Config::builder().brokers("127.0.0.1:1").request_timeout(std::time::Duration::from_millis(500));
    let client = Client::new(config.build().unwrap());
    let actions = Actions::new(Secret::from(TOKEN), &client);
    let bed = Bed { broker: None, app: app(&client, actions.clone()), client, actions };
    let cookie = bed.sign_in().await;
    for path in ["/dead-letters", "/dead-letters/orders.dlq", "/dead-letters/orders.dlq/0/1", "/transactions"] {
        bed.get(&cookie, path).await.has(StatusCode::SERVICE_UNAVAILABLE, &["role=\"alert\"", "127.0.0.1:1"]);
    }
    bed.get(&cookie, "/subscriptions").await.has(StatusCode::OK, &["No subscription of this process"]);
    for path in ["/dead-letters/orders.dlq/replay", "/dead-letters/orders.dlq/discard"] {
        let page = bed.post_with_token(path, "at=0/0").await;
        page.has(StatusCode::SERVICE_UNAVAILABLE, &["127.0.0.1:1"]);
    }
    let page = bed.post_with_token("/transactions/abort", "topic=o&partition=0&start-offset=0&sure=yes").await;
    page.has(StatusCode::SERVICE_UNAVAILABLE, &["127.0.0.1:1"]);
}
