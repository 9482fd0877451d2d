//! The shop's consumers and their health over HTTP. Always on the embedded broker: their topics have fixed names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Bed, DEADLINE, Process, until};

/// Status and body of `GET path`.
fn get(address: &str, path: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1;
    Some((status, serde_json::from_str(body).ok()?))
}

fn status(address: &str, path: &str) -> u16 {
    get(address, path).unwrap().0
}

/// Starts `serve` and gives the address of its HTTP.
fn serve(bed: &Bed, brokers: &str) -> (Process, String) {
    let process = bed.start(&["serve", "--http", "127.0.0.1:0", "--brokers", brokers]);
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
    assert_eq!(status(&address, "/health/ready"), 503);
    let told = until(|| {
        let (code, health) = get(&address, "/health/redpanda").unwrap();
        assert_eq!((code, health["status"].as_str()), (503, Some("unhealthy")));
        health["problems"][0].as_str().unwrap().contains(&nobody).then_some(())
    });
    told.expect("the report names the broker");
    process.signal(Signal::SIGTERM);
    process.end().expect(0);
}
