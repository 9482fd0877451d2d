//! Secrets appear nowhere: not in a trace log, not in the settings' output, not in an error.

use std::io;
use std::sync::{Arc, Mutex};

use base64::engine::general_purpose::STANDARD;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A secret in every form in which it might be seen: as it is, escaped, in base64, as bytes of a message.
fn forms(user: &str, secret: &str) -> Vec<String> {
    let plain = format!("\0{user}\0{secret}");
    let bearer = format!("n,,\x01auth=Bearer {secret}\x01\x01");
    let bytes = format!("{:?}", secret.as_bytes());
    vec![
        secret.to_owned(),
        format!("{secret:?}").trim_matches('"').to_owned(),
        STANDARD.encode(secret).trim_end_matches('=').to_owned(),
        STANDARD.encode(plain).trim_end_matches('=').to_owned(),
        STANDARD.encode(bearer).trim_end_matches('=').to_owned(),
        bytes.trim_matches(['[', ']']).to_owned(),
    ]
}

#[track_caller]
fn hides(text: &str, secrets: &[String], what: &str) {
    for secret in secrets {
        assert!(!text.contains(secret.as_str()), "{secret:?} is in {what}");
    }
}

#[tokio::test]
async fn secrets_are_not_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    // For the whole process: one thread's alone would miss what another thread has come across before it. What other tests log
    // here has secrets of its own.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let (password, token, client_secret) =
        ("s3cret-Passw0rd-of-alice", "t0ken-of-alice.abc.def", "s3cret-of-the-client");
    let sasl = Sasl::default().user("alice", password).token("alice", token);
    let broker = Broker::start(BrokerConfig::default().sasl(sasl.clone())).await.unwrap();
    let sasl = sasl.session_lifetime(Duration::from_millis(200));
    let forgetful = Broker::start(BrokerConfig::default().sasl(sasl)).await.unwrap();
    let mut secrets: Vec<String> = [password, token, client_secret].iter().flat_map(|s| forms("alice", s)).collect();
    let mut shown = String::new();

    let logins = [
        SaslConfig::plain("alice", password),
        SaslConfig::scram_sha_256("alice", password),
        SaslConfig::scram_sha_512("alice", password),
        SaslConfig::oauthbearer(|| async { Ok("t0ken-of-alice.abc.def".into()) }),
    ];
    for login in logins {
        let config = plain_config(&broker.bootstrap())
            .security_protocol(SecurityProtocol::SaslPlaintext)
            .sasl(login.allow_cleartext(true));
        shown += &format!("{config:?}");
        let client = soon(Client::connect(config.clone().build().unwrap())).await.unwrap();
        shown += &format!("{:?} {client:?}", client.config());
        sessions::session(&client).await;

        let config = config.brokers(forgetful.bootstrap()).build().unwrap();
        let client = soon(Client::connect(config)).await.unwrap();
        let before = renewals(&forgetful);
        while renewals(&forgetful) <= before {
            // One that comes too late for its session fails, and the next one has a new connection.
            _ = soon(Admin::new(&client).list_topics()).await;
        }
        client.close().await;
    }

    // Those that are refused, whatever the broker says of them.
    for (login, secret) in [
        (SaslConfig::plain("alice", "wr0ng-Passw0rd"), "wr0ng-Passw0rd"),
        (SaslConfig::scram_sha_256("alice", "wr0ng-Passw0rd"), "wr0ng-Passw0rd"),
        (SaslConfig::oauthbearer(|| async { Ok("wr0ng-t0ken".into()) }), "wr0ng-t0ken"),
    ] {
        secrets.extend(forms("alice", secret));
        let config = plain_config(&broker.bootstrap())
            .security_protocol(SecurityProtocol::SaslPlaintext)
            .sasl(login.allow_cleartext(true));
        let e = soon(Client::connect(config.build().unwrap())).await.unwrap_err();
        shown += &format!("{e} {e:?} {e:#}");
    }
    let endpoint = ailurus::ClientCredentials::new("http://localhost/token", "shop", client_secret);
    shown += &format!("{endpoint:?}");
    broker.shutdown().await;
    forgetful.shutdown().await;

    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    for expected in ["DEBUG", "logged in", "logged in again", "OAUTHBEARER"] {
        assert!(log.contains(expected), "the log has no {expected:?}: it is not one of everything");
    }
    assert!(shown.contains("alice") && shown.contains("shop"), "{shown}");
    hides(&log, &secrets, "the log");
    hides(&shown, &secrets, "what is shown");
}
