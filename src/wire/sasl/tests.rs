#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use ailurus_broker::{Broker, BrokerConfig, Fault, Sasl};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kafka_protocol::messages::MetadataRequest;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::config::TokenSource;
use crate::metrics::{Metrics, Observation};
use crate::wire::{Connection, Connector};

const LONG: Duration = Duration::from_secs(60);

fn password(mechanism: &'static str) -> Credential {
    Credential::Password { mechanism, username: "al,i=ce".into(), password: "hunter2".into() }
}

fn token(token: &str) -> Credential {
    Credential::Token { token: token.into(), extensions: vec![("logicalCluster".into(), "lkc-1".into())] }
}

fn text(message: &SaslMessage) -> &str {
    std::str::from_utf8(message).unwrap()
}

fn start(proof: Credential) -> (Exchange, String) {
    let (exchange, first) = Exchange::start(proof).unwrap();
    (exchange, text(&first).to_owned())
}

/// Returns the nonce of SCRAM's first message: any printable characters but a comma, so it may
/// contain "r=".
fn nonce(first: &str) -> &str {
    first.strip_prefix("n,,n=al=2Ci=3Dce,r=").unwrap()
}

fn error_of(step: Result<Step, ExchangeError>) -> ExchangeError {
    match step {
        Err(e) => e,
        Ok(Step::Send(message)) => panic!("it sends {:?}", text(&message)),
        Ok(Step::Done) => panic!("it is done"),
    }
}

#[test]
fn plain_takes_one_message() {
    let (mut exchange, first) = start(password("PLAIN"));
    assert_eq!(first, "\0al,i=ce\0hunter2");
    assert!(matches!(exchange.handle_message(b""), Ok(Step::Done)));
}

#[test]
fn tokens_have_extensions_and_rejections_a_response() {
    let (mut exchange, first) = start(token("abc.def"));
    assert_eq!(first, "n,,\x01logicalCluster=lkc-1\x01auth=Bearer abc.def\x01\x01");
    assert!(matches!(exchange.handle_message(b""), Ok(Step::Done)));

    let (mut exchange, _) = start(token("abc.def"));
    let next = exchange.handle_message(br#"{"status":"invalid_token","scope":"x"}"#).unwrap();
    assert!(matches!(next, Step::Send(message) if text(&message) == "\x01"));
    assert_eq!(exchange.token_rejection(), Some("invalid_token"));
    assert!(matches!(error_of(exchange.handle_message(b"")), ExchangeError::Malformed(_)), "success after a rejection");

    let (mut exchange, _) = start(token("abc.def"));
    exchange.handle_message(b"no JSON").unwrap();
    assert_eq!(exchange.token_rejection(), Some("no reason given"));
}

#[test]
fn scram_iterations_are_bounded() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        for (iterations, why) in [
            ("4095", "4095 iterations: allowed is 4096 to 1000000"),
            ("0", "zero"),
            ("1000001", "1000001 iterations"),
            ("4294967295", "4294967295 iterations"),
            ("4294967296", "decimal"),
        ] {
            let (mut exchange, first) = start(password(mechanism));
            let message = format!("r={}theirs,s={},i={iterations}", nonce(&first), STANDARD.encode("salt"));
            let e = error_of(exchange.handle_message(message.as_bytes())).to_string();
            assert!(e.contains(why), "{iterations}: {e}");
        }
    }
}

#[test]
fn scram_authenticates_the_server() {
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let challenged = || {
            let (mut exchange, first) = start(password(mechanism));
            let nonce = nonce(&first);
            let message = format!("r={nonce}theirs,s={},i=4096", STANDARD.encode("salt"));
            let next = exchange.handle_message(message.as_bytes()).unwrap();
            let Step::Send(proof) = next else { panic!("no proof") };
            let expected = format!("c=biws,r={nonce}theirs,p=");
            assert!(text(&proof).starts_with(&expected) && !text(&proof).contains("hunter2"), "{}", text(&proof));
            exchange
        };
        let size = if mechanism == "SCRAM-SHA-256" { 32 } else { 64 };
        let wrong = format!("v={}", STANDARD.encode(vec![7; size]));
        assert_eq!(error_of(challenged().handle_message(wrong.as_bytes())), ExchangeError::ServerNotAuthenticated);
        for nothing in ["", "v=", "v=!", "e=invalid-proof", "x"] {
            error_of(challenged().handle_message(nothing.as_bytes()));
        }
        // Another client's nonce, and a nonce without the server's part.
        let (mut exchange, first) = start(password(mechanism));
        error_of(exchange.handle_message(format!("r={},s=c2FsdA==,i=4096", nonce(&first)).as_bytes()));
        let (mut exchange, _) = start(password(mechanism));
        error_of(exchange.handle_message(b"r=another,s=c2FsdA==,i=4096"));
    }
}

proptest! {
    #[test]
    fn arbitrary_messages_do_not_panic(
        mechanism in prop::sample::select(vec!["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
        // Nearly valid messages get further.
        messages in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                "[rsivemn]=[a-zA-Z0-9=+/]{0,12}(,[sirve]=[a-zA-Z0-9=+/]{0,8}){0,3}".prop_map(String::into_bytes),
                (0_u32..5000, "[ -~]{0,6}").prop_map(|(i, s)| format!("r=NONCE{s},s=c2FsdA==,i={i}").into_bytes()),
            ],
            1..4,
        ),
    ) {
        let proof = if mechanism == "OAUTHBEARER" { token("t") } else { password(mechanism) };
        let (mut exchange, first) = start(proof);
        let nonce = if mechanism.starts_with("SCRAM") { nonce(&first) } else { "" };
        for message in messages {
            let message = String::from_utf8_lossy(&message).replace("NONCE", nonce);
            if !matches!(exchange.handle_message(message.as_bytes()), Ok(Step::Send(_))) {
                break;
            }
        }
    }
}

#[test]
fn rejections_name_user_and_remedy_but_no_secret() {
    let reject = |credential: &Credential, message: &str| rejected("b:1", credential, 58, message, None).to_string();
    let e = reject(&password("PLAIN"), "Authentication failed: Invalid username or password");
    assert!(e.starts_with(r#"b:1 refused user "al,i=ce" by PLAIN: Authentication failed: Invalid"#), "{e}");
    assert!(e.ends_with("check Credentials::username and Credentials::password"), "{e}");
    let e = reject(&password("PLAIN"), "hunter2 is wrong");
    assert!(e.contains("SaslAuthenticationFailed (58)") && !e.contains("hunter2"), "{e}");
    assert!(!reject(&token("abc.def"), "what is\nabc.def?").contains("abc.def"));
    assert!(reject(&token("t"), "a\nb").contains("by OAUTHBEARER: ab; see whether"));

    let jws = |expires: i64| format!("e30.{}.", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{expires}}}"#)));
    let e = reject(&token(&jws(1_700_000_000)), "no");
    assert!(e.contains("which expired at 2023-11-14T22:13:20Z: no; renew it"), "{e}");
    assert!(reject(&token(&jws(99_999_999_999)), "no").contains("refused the token by OAUTHBEARER: no; see whether"));
}

#[tokio::test]
async fn invalid_tokens_are_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (file, none) = (dir.path().join("token"), dir.path().join("none"));
    let of = |text: &str| {
        std::fs::write(&file, text).unwrap();
        TokenSource::File(file.clone())
    };
    assert_eq!(token::fetch(&of(" abc.def\n")).await.unwrap().expose(), "abc.def");
    let refused = async |source: TokenSource, why: &str| {
        let e = token::fetch(&source).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Authentication);
        assert!(e.full().contains(why) && !e.full().contains("abc"), "{}", e.full());
    };
    refused(of(" \n"), "holds no token: it is empty").await;
    refused(of("abc\x01host=x"), "holds no token: it has characters that a token can't have").await;
    refused(of(&"abc".repeat(30_000)), "can't be read: it is larger than 65536 bytes").await;
    refused(TokenSource::File(none), "can't be read: No such file").await;
    let away = TokenSource::provider(|| async { Err("the identity provider is away".into()) });
    refused(away, "the token provider has no token: the identity provider is away").await;
    refused(TokenSource::provider(|| async { Ok("".into()) }), "the token provider holds no token: it is empty").await;
}

/// Number of Metadata requests in flight.
#[derive(Debug, Default)]
struct InFlight(AtomicI64);

impl Metrics for InFlight {
    fn observe(&self, observation: &Observation<'_>) {
        let change = match observation {
            Observation::RequestSent { api: "Metadata", .. } => 1,
            Observation::RequestEnded { api: "Metadata", .. } => -1,
            _ => 0,
        };
        self.0.fetch_add(change, Ordering::Relaxed);
    }
}

/// Connects to a broker with short sessions; `fault` returns what happens to each message of later
/// logins.
async fn reauthenticating(
    metrics: &Arc<InFlight>,
    fault: impl Fn() -> Option<Fault> + Send + Sync + 'static,
) -> (Broker, Connection) {
    let sasl = Sasl::default().user("alice", "hunter2").session_lifetime(Duration::from_millis(200));
    let broker = Broker::start(BrokerConfig::default().sasl(sasl)).await.unwrap();
    let logins = AtomicU32::new(0);
    broker.set_hook(move |request| {
        let later = request.api_key == 36 && logins.fetch_add(1, Ordering::Relaxed) >= 2; // a login takes two
        later.then(&fault).flatten()
    });
    let config = Config::builder()
        .security_protocol(SecurityProtocol::SaslPlaintext)
        .sasl(SaslConfig::scram_sha_256("alice", "hunter2"))
        .metrics(metrics.clone())
        .build()
        .unwrap();
    let connection = Connector::new(&config).connect(&broker.bootstrap().parse().unwrap()).await.unwrap();
    (broker, connection)
}

#[tokio::test]
async fn a_failed_reauthentication_closes_the_connection() {
    let (broker, connection) = reauthenticating(&Arc::default(), || Some(Fault::Error(58))).await;
    tokio::time::timeout(LONG, connection.closed()).await.unwrap();
    let e = connection.request(MetadataRequest::default(), LONG).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected);
    assert!(e.to_string().contains("the login could not be renewed before the session's end: 127.0.0.1:"), "{e}");
    assert!(e.to_string().contains("refused user \"alice\" by SCRAM-SHA-256"), "{e}");
    broker.shutdown().await;
}

#[tokio::test]
async fn queued_requests_are_not_counted_as_in_flight() {
    let (starts, mut started) = mpsc::unbounded_channel();
    let in_flight = Arc::new(InFlight::default());
    let fault = move || {
        _ = starts.send(());
        Some(Fault::DelayResponse(LONG))
    };
    let (broker, connection) = reauthenticating(&in_flight, fault).await;
    started.recv().await.unwrap();
    let queued = connection.submit(MetadataRequest::default(), LONG);
    connection.close().await;
    assert_eq!(queued.await.unwrap_err().kind(), ErrorKind::Disconnected);
    assert_eq!(in_flight.0.load(Ordering::Relaxed), 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn queued_requests_outlive_the_handle() {
    let (starts, mut started) = mpsc::unbounded_channel();
    let fault = move || {
        _ = starts.send(());
        Some(Fault::DelayResponse(Duration::from_millis(50)))
    };
    let (broker, connection) = reauthenticating(&Arc::default(), fault).await;
    started.recv().await.unwrap();
    let queued = connection.submit(MetadataRequest::default(), LONG);
    drop(connection);
    assert!(!queued.await.unwrap().brokers.is_empty());
    broker.shutdown().await;
}

/// Re-authentication waits for the requests in flight, also for one whose caller does not poll.
#[tokio::test]
async fn reauthentication_does_not_wait_for_callers() {
    let (starts, mut started) = mpsc::unbounded_channel();
    let fault = move || {
        _ = starts.send(());
        None
    };
    let (broker, connection) = reauthenticating(&Arc::default(), fault).await;
    connection.request(MetadataRequest::default(), LONG).await.unwrap(); // the connection's task runs
    let mut unpolled = connection.submit(MetadataRequest::default(), 100 * LONG);
    assert!(futures_util::poll!(&mut unpolled).is_pending());
    tokio::time::timeout(LONG, started.recv()).await.unwrap();
    assert!(!unpolled.await.unwrap().brokers.is_empty());
    broker.shutdown().await;
}
