//! The shop's consumers and their health over HTTP. Always on the embedded broker: their topics have fixed names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use ailurus_broker::{Broker, BrokerConfig, Fault, RequestInfo};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Bed, DEADLINE, Process, until};

/// Status and body of `GET path`, if that is JSON.
fn get(address: &str, path: &str) -> Option<(u16, Value)> {
    let (status, _, body) = fetch(address, path)?;
    Some((status, serde_json::from_str(&body).ok()?))
}

/// Status, head and body of `GET path`.
fn fetch(address: &str, path: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((status, head.to_owned(), body.to_owned()))
}

fn status(address: &str, path: &str) -> u16 {
    get(address, path).unwrap().0
}

/// Starts `serve` and gives the address of its HTTP.
fn serve(bed: &Bed, brokers: &str) -> (Process, String) {
    serve_with(bed, brokers, &[])
}

/// The same with these variables.
fn serve_with(bed: &Bed, brokers: &str, variables: &[(&str, &str)]) -> (Process, String) {
    let mut command = bed.command(&["serve", "--listen", "127.0.0.1:0", "--brokers", brokers]);
    command.env("REDPANDA_HEALTH_TIMEOUT", "60000"); // a busy machine may take long
    command.envs(variables.iter().copied());
    let process = Process::spawn(command);
    let line = process.line(|l| l.starts_with("http://"));
    let address = line.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    (process, address)
}

#[test]
fn ready_when_both_consumers_are_members_and_gone_in_order() {
    let bed = Bed::embedded();
    let (process, address) = serve(&bed, &bed.brokers);
    assert_eq!(status(&address, "/health/live"), 200);
    until(|| (status(&address, "/health/ready") == 200).then_some(())).expect("ready");
    let (code, health) = get(&address, "/health/redpanda").unwrap();
    assert_eq!((code, health["status"].as_str()), (200, Some("healthy")), "{health}");
    assert_eq!(health["subscriptions"].as_array().unwrap().len(), 2, "{health}");
    assert!(health["brokers"].as_array().is_some_and(|b| !b.is_empty()), "{health}");
    assert!(bed.dir.path().join("ailurus-shop.redb").exists());
    assert!(get(&address, "/health/nothing").is_none_or(|(code, _)| code == 404));
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
    for group in ["stock-consumer-group", "analytics-consumer-group"] {
        let described = bed.run(&["group", "describe", group, "--json"]).json_lines().remove(0);
        assert_eq!(described["members"], serde_json::json!([]), "{group} was left");
    }
}

#[test]
fn alive_but_not_ready_without_a_cluster() {
    let bed = Bed::embedded();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (process, address) = serve(&bed, &nobody);
    assert_eq!(status(&address, "/health/live"), 200);
    let (code, body) = get(&address, "/health/ready").unwrap();
    assert_eq!((code, body["status"].as_str()), (503, Some("not ready")));
    assert!(body["reasons"][0].as_str().unwrap().contains(&nobody), "{body}");
    let told = until(|| {
        let (code, health) = get(&address, "/health/redpanda").unwrap();
        assert_eq!((code, health["status"].as_str()), (503, Some("unhealthy")));
        health["problems"][0].as_str().unwrap().contains(&nobody).then_some(())
    });
    told.expect("the report names the broker");
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
}

#[test]
fn brokers_that_hang_are_noticed_long_before_the_session_expires() {
    let bed = Bed::embedded();
    let (process, address) =
        serve_with(&bed, &bed.brokers, &[("REDPANDA_SESSION_TIMEOUT", "300000"), ("REDPANDA_HEALTH_TIMEOUT", "500")]);
    until(|| (status(&address, "/health/ready") == 200).then_some(())).expect("ready");
    bed.stop_broker();
    let reasons = until(|| {
        let (code, body) = get(&address, "/health/ready").unwrap();
        (code == 503).then_some(body["reasons"].to_string())
    });
    assert!(reasons.expect("not ready").contains("has not answered within 500ms"));
    assert_eq!(status(&address, "/health/live"), 200);
    let (_, health) = get(&address, "/health/redpanda").unwrap();
    assert_eq!(health["subscriptions"][0]["state"], "member", "{health}");
    drop(process);
}

#[test]
fn the_page_shows_all_and_needs_nothing_from_elsewhere() {
    let bed = Bed::embedded();
    let (process, address) = serve_with(&bed, &bed.brokers, &[("REDPANDA_CLIENT_ID", "<b>shop</b>&\"")]);
    until(|| (status(&address, "/health/ready") == 200).then_some(())).expect("ready");
    let shown = until(|| {
        let (code, head, page) = fetch(&address, "/").unwrap();
        assert_eq!(code, 200);
        page.contains("<th scope=\"row\">order-analytics</th>").then_some((head, page)) // it may be as of a moment ago
    });
    let (head, page) = shown.expect("the topics");
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
        assert!(page.contains(text), "no {text:?} in {page}");
    }
    for text in ["<b>", "http://", "https://", "\"//", " src=", "url(", "@import", "<img", "<iframe"] {
        assert!(!page.contains(text), "{text:?} in {page}");
    }
    let (code, _, fragment) = fetch(&address, "/fragment").unwrap();
    assert_eq!(code, 200);
    assert!(fragment.starts_with("<header data-status=\"Healthy\">") && !fragment.contains("<html"), "{fragment}");
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
}

#[test]
fn what_stalls_is_told_and_a_second_signal_does_not_wait_for_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(BrokerConfig::default())).unwrap();
    // A dead letter is written and never acknowledged.
    broker.set_hook(|request: &RequestInfo<'_>| {
        let letter = b"stock-updates.dlq";
        let is_letter = request.api_key == 0 && request.body.windows(letter.len()).any(|w| w == letter);
        is_letter.then_some(Fault::DelayResponse(DEADLINE * 10))
    });
    let bed = Bed::embedded();
    let long = [
        ("REDPANDA_STALL_TIMEOUT", "200"),
        ("REDPANDA_SHUTDOWN_TIMEOUT", "3600000"),
        ("REDPANDA_DELIVERY_TIMEOUT", "3600000"),
        ("REDPANDA_REQUEST_TIMEOUT", "600000"),
    ];
    let (process, address) = serve_with(&bed, &broker.bootstrap(), &long);
    until(|| (status(&address, "/health/ready") == 200).then_some(())).expect("ready");
    let produce = ["produce", "stock-updates", "--partition", "0", "--brokers", &broker.bootstrap()];
    bed.feed(&produce, b"no event\n").expect(0);
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
    assert!(fetch(&address, "/").unwrap().2.contains("<span class=\"state bad\">stalled</span> for "));
    assert_eq!(status(&address, "/health/ready"), 200, "it is in its groups, and its brokers answer");

    process.signal(Signal::SIGTERM);
    let ending = until(|| {
        let (code, body) = get(&address, "/health/ready").unwrap();
        (code == 503).then(|| body["reasons"][0].as_str().unwrap().to_owned())
    });
    assert_eq!(ending.as_deref(), Some("the process is shutting down"));
    process.error_line(|line| line.starts_with("waiting for ") && line.ends_with("a second signal cuts it short"));
    process.signal(Signal::SIGTERM);
    let ended = process.end().expect(130);
    let left = "group stock-consumer-group ended with records left: stock-updates/0: 0 in hand cancelled, 1 parked, 0 not begun";
    assert!(ended.stderr.contains(left), "{}", ended.stderr);
    drop(broker);
}

#[test]
fn without_being_told_it_listens_on_loopback() {
    let bed = Bed::embedded();
    let help = bed.run(&["serve", "--help"]).expect(0).stdout;
    assert!(help.contains("--listen") && help.contains("[default: 127.0.0.1:8080]"), "{help}");
}

/// The reasons of `/health/ready`, once it answers with this status and they hold this text.
fn until_ready_says(address: &str, code: u16, text: &str) -> String {
    let said = until(|| {
        let (is, body) = get(address, "/health/ready")?;
        Some(body["reasons"].to_string()).filter(|reasons| is == code && reasons.contains(text))
    });
    said.unwrap_or_else(|| panic!("{code} {text}: {:?}", get(address, "/health/ready")))
}

#[test]
fn brokers_that_are_away_at_the_start_and_later_are_on_the_page_and_waited_for() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(Broker::start(BrokerConfig::default())).unwrap();
    let down = || runtime.block_on(broker.stop_node(0)).unwrap();
    let up = || runtime.block_on(broker.start_node(0)).unwrap();
    let refused = format!("{}: refused the connection", broker.bootstrap());
    let bed = Bed::embedded();
    down();
    let (process, address) = serve_with(&bed, &broker.bootstrap(), &[("REDPANDA_SESSION_TIMEOUT", "300000")]);
    until_ready_says(&address, 503, "group \\\"stock-consumer-group\\\" can't be reached as it should");
    let (code, health) = get(&address, "/health/redpanda").unwrap();
    assert_eq!((code, &health["status"]), (503, &Value::from("unhealthy")), "{health}");
    assert_eq!(health["subscriptions"][0]["state"], "joining", "{health}");
    assert!(health["subscriptions"][0]["problem"].as_str().unwrap().contains(&refused), "{health}");
    for shown in ["stock-consumer-group", &refused] {
        assert!(until(|| fetch(&address, "/")?.2.contains(shown).then_some(())).is_some(), "{shown} on the page");
    }
    // It is back, and all is well without a restart.
    up();
    until_ready_says(&address, 200, "null");
    let healthy =
        || until(|| (get(&address, "/health/redpanda")?.1["status"] == "healthy").then_some(())).expect("healthy");
    healthy();
    // It goes away under work, and comes back.
    down();
    until_ready_says(&address, 503, &refused);
    assert!(until(|| fetch(&address, "/")?.2.contains(&refused).then_some(())).is_some(), "on the page");
    assert_eq!(status(&address, "/health/live"), 200);
    up();
    until_ready_says(&address, 200, "null");
    healthy();
    // What is written now is handled.
    bed.feed(&["produce", "stock-updates", "--partition", "0", "--brokers", &broker.bootstrap()], b"no event\n")
        .expect(0);
    let letter = || bed.run(&["dlq", "list", "stock-updates.dlq", "--brokers", &broker.bootstrap(), "--json"]).stdout;
    assert!(until(|| (!letter().is_empty()).then_some(())).is_some(), "a dead letter");
    process.signal(Signal::SIGTERM);
    let ended = process.end().expect(0);
    let started = ended.stderr.lines().filter(|l| l.contains("can't start")).count();
    assert_eq!(started, 1, "{}", ended.stderr);
}

#[test]
fn a_first_login_that_is_refused_ends_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sasl = ailurus_broker::Sasl::default().user("shop", "secret");
    let broker = runtime.block_on(Broker::start(BrokerConfig::default().sasl(sasl))).unwrap();
    let bed = Bed::embedded();
    let login = [
        ("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("REDPANDA_SASL_ALLOW_CLEARTEXT", "true"),
        ("REDPANDA_SASL_MECHANISM", "PLAIN"),
        ("REDPANDA_SASL_USERNAME", "shop"),
        ("REDPANDA_SASL_PASSWORD", "wrong"),
    ];
    let (process, _) = serve_with(&bed, &broker.bootstrap(), &login);
    let ended = process.end().expect(6);
    assert!(ended.stderr.contains("stock-consumer-group"), "{}", ended.stderr);
}
