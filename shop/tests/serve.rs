//! The shop's program: its consumers, and their health over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ailurus::ProducerRecord;
use ailurus_broker::{BrokerConfig, Fault, RequestInfo, Sasl};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Bed, DEADLINE, get, until, until_ready};

fn status(address: &str, path: &str) -> u16 {
    get(address, path).unwrap().0
}

fn page(address: &str, path: &str) -> (u16, String, String) {
    support::fetch(address, path, "text/html").unwrap()
}

#[test]
fn ready_when_both_consumers_are_members_and_gone_in_order() {
    let bed = Bed::new();
    let (process, address) = bed.start(&[]);
    assert_eq!(status(&address, "/health/live"), 200);
    until_ready(&address);
    let (code, health) = get(&address, "/health/redpanda").unwrap();
    assert_eq!((code, health["status"].as_str()), (200, Some("healthy")), "{health}");
    assert_eq!(health["subscriptions"].as_array().unwrap().len(), 2, "{health}");
    assert!(health["brokers"].as_array().is_some_and(|b| !b.is_empty()), "{health}");
    assert!(bed.dir.path().join("ailurus-shop.redb").exists());
    assert!(get(&address, "/health/nothing").is_none_or(|(code, _)| code == 404));
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
    for group in ["stock-consumer-group", "analytics-consumer-group"] {
        assert_eq!(bed.members(group), 0, "{group} was left");
    }
}

#[test]
fn brokers_that_hang_are_noticed_before_the_session_expires() {
    let bed = Bed::new();
    let (process, address) = bed.start(&[("REDPANDA_SESSION_TIMEOUT", "300000"), ("REDPANDA_HEALTH_TIMEOUT", "500")]);
    until_ready(&address);
    bed.broker.set_hook(|_: &RequestInfo<'_>| Some(Fault::DelayResponse(DEADLINE * 10)));
    let reasons = until(|| {
        let (code, body) = get(&address, "/health/ready").unwrap();
        (code == 503).then_some(body["reasons"].to_string())
    });
    assert!(reasons.expect("not ready").contains("has not responded within 500ms"));
    assert_eq!(status(&address, "/health/live"), 200);
    let (_, health) = get(&address, "/health/redpanda").unwrap();
    assert_eq!(health["subscriptions"][0]["state"], "member", "{health}");
    drop(process);
}

#[test]
fn the_page_shows_all_and_loads_nothing_from_elsewhere() {
    let bed = Bed::new();
    let (process, address) = bed.start(&[("REDPANDA_CLIENT_ID", "<b>shop</b>&\"")]);
    until_ready(&address);
    let shown = until(|| {
        let (code, head, page) = page(&address, "/");
        assert_eq!(code, 200);
        page.contains("<th scope=\"row\">order-analytics</th>").then_some((head, page)) // it may be as of a moment ago
    });
    let (head, page_text) = shown.expect("the topics");
    let head = head.to_lowercase();
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(head.contains("content-security-policy: default-src 'none'; "), "{head}");
    for text in [
        "<!DOCTYPE html><html lang=\"en\">",
        "<title>Healthy – ailurus</title>",
        "<h1 class=\"state good\">Healthy</h1>",
        "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>",
        "stock-consumer-group",
        "analytics-consumer-group",
        "<th scope=\"row\">order-analytics</th>",
        ">idle</span>",
        "&lt;b&gt;shop&lt;/b&gt;&amp;&quot;",
    ] {
        assert!(page_text.contains(text), "no {text:?} in {page_text}");
    }
    for text in ["<b>", "http://", "https://", "\"//", " src=", "url(", "@import", "<img", "<iframe"] {
        assert!(!page_text.contains(text), "{text:?} in {page_text}");
    }
    let (code, _, fragment) = page(&address, "/fragment");
    assert_eq!(code, 200);
    assert!(fragment.starts_with("<header data-status=\"Healthy\">") && !fragment.contains("<html"), "{fragment}");
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
}

#[test]
fn a_second_signal_does_not_wait_for_a_stalled_partition() {
    let bed = Bed::new();
    // The produce of the dead letter is never acknowledged.
    bed.broker.set_hook(|request: &RequestInfo<'_>| {
        let topic = b"stock-updates.dlq";
        let is_dead_letter = request.api_key == 0 && request.body.windows(topic.len()).any(|w| w == topic);
        is_dead_letter.then_some(Fault::DelayResponse(DEADLINE * 10))
    });
    let (process, address) = bed.start(&[
        ("REDPANDA_STALL_TIMEOUT", "200"),
        ("REDPANDA_SHUTDOWN_TIMEOUT", "3600000"),
        ("REDPANDA_DELIVERY_TIMEOUT", "3600000"),
        ("REDPANDA_REQUEST_TIMEOUT", "600000"),
    ]);
    until_ready(&address);
    bed.produce(ProducerRecord::to("stock-updates").value(b"no event"));
    let stalled = until(|| {
        let (code, health) = get(&address, "/health/redpanda").unwrap();
        (code == 503).then_some(health)
    });
    let stalled = stalled.expect("it stalls");
    let problem = stalled["problems"][0].as_str().unwrap();
    assert!(
        problem.starts_with("stock-updates/0 of group \"stock-consumer-group\" is stalled: 1 record waits"),
        "{problem}"
    );
    assert!(problem.contains("the dead letter of offset 0 is being written"), "{problem}");
    assert!(page(&address, "/").2.contains("<span class=\"state bad\">stalled</span> for "));
    assert_eq!(status(&address, "/health/ready"), 200, "it is in its groups, and its brokers respond");

    process.signal(Signal::SIGTERM);
    let ending = until(|| {
        let (code, body) = get(&address, "/health/ready").unwrap();
        (code == 503).then(|| body["reasons"][0].as_str().unwrap().to_owned())
    });
    assert_eq!(ending.as_deref(), Some("the process is shutting down"));
    process.error_line(|line| line.starts_with("waiting for ") && line.ends_with("a second signal cuts it short"));
    process.signal(Signal::SIGTERM);
    let ended = process.end().expect(130);
    let left = "group stock-consumer-group ended with records left: stock-updates/0: ";
    assert!(ended.stderr.contains(left) && ended.stderr.contains("1 awaiting retry, 0 queued"), "{}", ended.stderr);
}

#[test]
fn http_is_on_loopback_by_default() {
    let bed = Bed::new();
    let mut help = std::process::Command::new(env!("CARGO_BIN_EXE_ailurus-shop"));
    let help = String::from_utf8(help.arg("--help").current_dir(bed.dir.path()).output().unwrap().stdout).unwrap();
    assert!(help.contains("--listen") && help.contains("[default: 127.0.0.1:8080]"), "{help}");
}

/// Returns the reasons of `/health/ready`, once its status is this and they have this text.
fn until_ready_says(address: &str, code: u16, text: &str) -> String {
    let found = until(|| {
        let (is, body) = get(address, "/health/ready")?;
        Some(body["reasons"].to_string()).filter(|reasons| is == code && reasons.contains(text))
    });
    found.unwrap_or_else(|| panic!("{code} {text}: {:?}", get(address, "/health/ready")))
}

#[test]
fn an_outage_at_the_start_and_one_later_are_waited_for() {
    let bed = Bed::new();
    let refused = format!("{}: refused the connection", bed.broker.bootstrap());
    bed.stop_broker();
    let (process, address) = bed.start(&[("REDPANDA_SESSION_TIMEOUT", "300000")]);
    assert_eq!(status(&address, "/health/live"), 200);
    until_ready_says(&address, 503, "group \\\"stock-consumer-group\\\" is unavailable for ");
    let (code, health) = get(&address, "/health/redpanda").unwrap();
    assert_eq!((code, &health["status"]), (503, &Value::from("unhealthy")), "{health}");
    assert_eq!(health["subscriptions"][0]["state"], "joining", "{health}");
    assert!(health["subscriptions"][0]["problem"].as_str().unwrap().contains(&refused), "{health}");
    for shown in ["stock-consumer-group", &refused] {
        assert!(until(|| page(&address, "/").2.contains(shown).then_some(())).is_some(), "{shown} on the page");
    }
    // The broker is back, and no restart is needed.
    bed.start_broker();
    until_ready_says(&address, 200, "null");
    let healthy =
        || until(|| (get(&address, "/health/redpanda")?.1["status"] == "healthy").then_some(())).expect("healthy");
    healthy();
    // An outage under work.
    bed.stop_broker();
    until_ready_says(&address, 503, &refused);
    assert!(until(|| page(&address, "/").2.contains(&refused).then_some(())).is_some(), "on the page");
    assert_eq!(status(&address, "/health/live"), 200);
    bed.start_broker();
    until_ready_says(&address, 200, "null");
    healthy();
    bed.produce(ProducerRecord::to("stock-updates").value(b"no event"));
    assert!(until(|| (bed.records("stock-updates.dlq") > 0).then_some(())).is_some(), "a dead letter");
    process.signal(Signal::SIGTERM);
    let ended = process.end().expect(0);
    // Producer, members and metadata notice the first outage: one of them logs it.
    let first_outage =
        ended.stderr.lines().filter(|l| l.contains(" WARN ")).take_while(|l| !l.contains(" again, after "));
    assert_eq!(first_outage.count(), 1, "{}", ended.stderr);
}

#[test]
fn a_first_login_that_is_refused_ends_it() {
    let bed = Bed::with(BrokerConfig::default().sasl(Sasl::default().user("shop", "secret")));
    let (process, _) = bed.start(&[
        ("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("REDPANDA_SASL_ALLOW_CLEARTEXT", "true"),
        ("REDPANDA_SASL_MECHANISM", "PLAIN"),
        ("REDPANDA_SASL_USERNAME", "shop"),
        ("REDPANDA_SASL_PASSWORD", "wrong"),
    ]);
    let ended = process.end().expect(6);
    assert!(ended.stderr.contains("stock-consumer-group"), "{}", ended.stderr);
}
