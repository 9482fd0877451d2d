//! Tokens that the command gets itself, from a token endpoint on this machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ailurus_broker::{Broker, BrokerConfig, Sasl};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::{Ended, command, run};
use tempfile::TempDir;

const TOKEN: &str = "t0ken-of-the-shop";
const SECRET: &str = "s3cret/of the+shop_1.*~";

/// A token endpoint that knows one client; its URL, and the number of requests.
fn endpoint() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/oauth/token?realm=x", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                head.push(line.trim().to_owned());
            }
            let header = |name: &str| {
                let wanted = |l: &&String| l.to_ascii_lowercase().starts_with(&format!("{name}: "));
                head.iter().find(wanted).map(|l| l[name.len() + 2..].to_owned()).unwrap_or_default()
            };
            let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let client = STANDARD.encode("my-shop:s3cret%2Fof+the%2Bshop_1.*%7E");
            let right = head[0] == "POST /oauth/token?realm=x HTTP/1.1"
                && header("authorization") == format!("Basic {client}")
                && body == b"grant_type=client_credentials&scope=kafka+topics";
            let (status, json) = if right {
                ("200 OK", format!(r#"{{"access_token":"{TOKEN}","token_type":"Bearer","expires_in":3600}}"#))
            } else {
                ("401 Unauthorized", r#"{"error":"invalid_client","error_description":"who are you?"}"#.to_owned())
            };
            let size = json.len();
            write!(stream.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: {size}\r\n\r\n{json}").unwrap();
        }
    });
    (url, requests)
}

/// Runs with tokens of this endpoint, logging everything; what is secret must not be in it.
fn list(brokers: &str, url: &str, secret: &str) -> Ended {
    let dir = TempDir::new().unwrap();
    let mut command = command(dir.path());
    command.args(["topic", "list", "--log", "trace", "--brokers", brokers]).envs([
        ("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
        ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER"),
        ("REDPANDA_SASL_ALLOW_CLEARTEXT", "true"),
        ("REDPANDA_SASL_OAUTH_TOKEN_ENDPOINT", url),
        ("REDPANDA_SASL_OAUTH_CLIENT_ID", "my-shop"),
        ("REDPANDA_SASL_OAUTH_CLIENT_SECRET", secret),
        ("REDPANDA_SASL_OAUTH_SCOPE", "kafka topics"),
    ]);
    let ended = run(command, b"");
    let basic = STANDARD.encode("my-shop:s3cret%2Fof+the%2Bshop_1.*%7E");
    for hidden in [TOKEN, secret, "s3cret%2Fof", &basic, &STANDARD.encode(TOKEN), &STANDARD.encode(secret)] {
        assert!(!ended.stderr.contains(hidden) && !ended.stdout.contains(hidden), "{hidden} is in what it says");
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_an_endpoint_lets_in() {
    let sasl = Sasl::default().token("shop", TOKEN);
    let broker = Broker::start(BrokerConfig::default().nodes(2).sasl(sasl)).await.unwrap();
    broker.create_topic("orders", 1).unwrap();
    let brokers = broker.bootstrap();
    let (url, requests) = endpoint();
    let ended = list(&brokers, &url, SECRET).expect(0);
    assert!(ended.stdout.contains("orders"), "{}", ended.stdout);
    assert!(ended.stderr.contains("logged in"), "it logs everything: {}", ended.stderr);
    assert_eq!(requests.load(Ordering::Relaxed), 1, "one token for all connections");

    let ended = list(&brokers, &url, "another-secret").expect(6);
    let refused = "the endpoint refused client \"my-shop\" with 401 Unauthorized: invalid_client (who are you?)";
    assert!(ended.stderr.contains(refused), "{}", ended.stderr);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = list(&brokers, &format!("http://{nobody}/"), SECRET);
    assert!(ended.code != 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("no token from http://127.0.0.1:"), "{}", ended.stderr);
    let ended = list(&brokers, "http://id.example.com/token", SECRET).expect(2);
    let allowed = "allowed is an https URL, or an http one on this machine";
    assert!(ended.stderr.contains(allowed), "{}", ended.stderr);
    broker.shutdown().await;
}
