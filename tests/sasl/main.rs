//! Logins by SASL: each mechanism from the first record to the last, renewed on the way, refused, and never seen.
//!
//! On embedded brokers, and on a real one whose SASL listener `AILURUS_TEST_SASL` names (host:port), with the user and password of
//! `AILURUS_TEST_SASL_USER` (user:password) and unsecured tokens; `tests/kafka/security.rs` starts such a Kafka.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod failures;
mod outages;
mod renewal;
mod secrets;
mod sessions;

use std::collections::BTreeSet;
use std::env;
use std::future::Future;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ailurus::{
    Admin, Client, Config, ConfigBuilder, Consumer, ConsumerEvent, Error, ErrorKind, Producer, ProducerRecord,
    SaslConfig, SecurityProtocol,
};
use ailurus_broker::{Broker, BrokerConfig, Fault, Sasl, SaslMechanism};
use ailurus_test_support as support;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// No test takes this long; one that does has failed.
const LONG: Duration = Duration::from_secs(300);
const SASL_HANDSHAKE: i16 = 17;
const API_VERSIONS: i16 = 18;
const SASL_AUTHENTICATE: i16 = 36;

/// A broker that requires a login: an embedded one, or the real one of the environment.
struct SaslBroker {
    bootstrap: String,
    user: String,
    password: String,
    embedded: Option<Broker>,
}

impl SaslBroker {
    /// As the environment has it.
    async fn any() -> Self {
        let Ok(bootstrap) = env::var("AILURUS_TEST_SASL") else { return Self::embedded(|sasl| sasl).await };
        let user = env::var("AILURUS_TEST_SASL_USER").expect("AILURUS_TEST_SASL_USER is user:password");
        let (user, password) = user.split_once(':').expect("AILURUS_TEST_SASL_USER is user:password");
        Self { bootstrap, user: user.into(), password: password.into(), embedded: None }
    }

    async fn embedded(change: impl FnOnce(Sasl) -> Sasl) -> Self {
        let (user, password) = ("alice", "pass word=,✓");
        let sasl = Sasl::default().user(user, password).token(user, "a-fixed-token").unsecured_tokens(true);
        let config = BrokerConfig::default()
            .nodes(3)
            .default_partitions(3)
            .versions(support::embedded_versions())
            .session_timeouts(Duration::from_millis(100), Duration::from_secs(300))
            .sasl(change(sasl));
        let broker = Broker::start(config).await.expect("the embedded broker starts");
        Self { bootstrap: broker.bootstrap(), user: user.into(), password: password.into(), embedded: Some(broker) }
    }

    fn broker(&self) -> &Broker {
        self.embedded.as_ref().expect("it is an embedded one")
    }

    /// Each mechanism, with what lets us in.
    fn logins(&self) -> Vec<SaslConfig> {
        let user = self.user.clone();
        vec![
            SaslConfig::plain(&self.user, self.password.as_str()),
            SaslConfig::scram_sha_256(&self.user, self.password.as_str()),
            SaslConfig::scram_sha_512(&self.user, self.password.as_str()),
            SaslConfig::oauthbearer(move || {
                let token = jws(&user, Duration::from_secs(3600));
                async move { Ok(token.into()) }
            }),
        ]
    }

    fn config(&self, sasl: SaslConfig) -> ConfigBuilder {
        plain_config(&self.bootstrap)
            .security_protocol(SecurityProtocol::SaslPlaintext)
            .sasl(sasl.allow_cleartext(true))
    }

    async fn create_topic(&self, client: &Client) -> String {
        let topic = unique("t");
        match &self.embedded {
            Some(broker) => broker.create_topic(&topic, 3).unwrap(),
            None => Admin::new(client).create_topic(&topic, 3, None).await.unwrap(),
        }
        topic
    }

    async fn client(&self, sasl: SaslConfig) -> Client {
        soon(Client::connect(self.config(sasl).build().unwrap())).await.unwrap()
    }
}

fn plain_config(bootstrap: &str) -> ConfigBuilder {
    Config::builder().brokers(bootstrap)
}

/// Number of logins beyond the first one of each connection, which requests the versions once.
fn renewals(broker: &Broker) -> i64 {
    let requests = |api| i64::try_from(broker.request_count(api)).unwrap();
    requests(SASL_HANDSHAKE) - requests(API_VERSIONS)
}

/// A token that nobody has signed.
fn jws(user: &str, valid: Duration) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    jws_until(user, now, now + valid.as_secs())
}

fn jws_until(user: &str, from: u64, until: u64) -> String {
    let claims = format!(r#"{{"sub":"{user}","iat":{from},"exp":{until}}}"#);
    format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims))
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it takes too long")
}

/// Puts a record with each number as its value into partition number modulo 3.
async fn produce(producer: &Producer, topic: &str, numbers: Range<i32>) {
    let mut sent = Vec::new();
    for n in numbers {
        let value = n.to_string();
        sent.push(producer.send(ProducerRecord::to(topic).value(&value).partition(n % 3)).await.unwrap());
    }
    for delivery in sent {
        soon(delivery).await.unwrap();
    }
}

/// Returns the next numbers of a partition, in order.
async fn next(consumer: &mut Consumer) -> (i32, Vec<i32>) {
    loop {
        if let ConsumerEvent::Records(records) = soon(consumer.recv()).await.unwrap() {
            let number = |v: &Option<bytes::Bytes>| std::str::from_utf8(v.as_ref().unwrap()).unwrap().parse().unwrap();
            consumer.commit(&[(records.topic_partition(), records.next_offset)]).await.unwrap();
            return (records.partition, records.records.iter().map(|r| number(&r.value)).collect());
        }
    }
}

fn unique(name: &str) -> String {
    format!("ailurus-test-{}-{name}", uuid::Uuid::now_v7().simple())
}
