//! Logins that are refused for a while after they were good: every role waits, says so, and works again by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ailurus::GroupProtocol;

use super::*;

const HEARTBEAT: i16 = 12;
const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
/// `SASL_AUTHENTICATION_FAILED`.
const REFUSED: i16 = 58;
/// Logins that fail before the outage ends.
const FAILURES: u64 = 12;

/// A login that fails while the switch is on, and the number of failures.
#[derive(Clone, Default)]
struct Away(Arc<AtomicBool>, Arc<AtomicU64>);

impl Away {
    fn is_now(&self) -> bool {
        let away = self.0.load(Ordering::SeqCst);
        if away {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        away
    }

    async fn begins(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Once it has been met often enough.
    async fn ends(&self) {
        soon(async {
            while self.1.load(Ordering::SeqCst) < FAILURES {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A broker and a client whose source of tokens is [`Away`].
async fn of_tokens(away: &Away) -> (SaslBroker, ConfigBuilder) {
    let broker = SaslBroker::embedded(|sasl| sasl).await;
    let config = with_source(&broker, away);
    (broker, config)
}

fn with_source(broker: &SaslBroker, away: &Away) -> ConfigBuilder {
    let source = away.clone();
    let login = SaslConfig::oauthbearer(move || {
        let token =
            if source.is_now() { Err("the identity provider is away".into()) } else { Ok("a-fixed-token".into()) };
        async move { token }
    });
    broker.config(login)
}

/// A broker that refuses logins while it is [`Away`], as one does that is being restarted.
async fn of_refusals() -> (SaslBroker, ConfigBuilder) {
    let broker = SaslBroker::embedded(|sasl| sasl).await;
    let config = broker.config(SaslConfig::plain(&broker.user, broker.password.as_str()));
    (broker, config)
}

/// Spoils logins while it is away, and cuts the connections that members have by their heartbeats.
fn spoil(broker: &SaslBroker, away: &Away, refuse: bool) {
    let away = away.clone();
    broker.broker().set_hook(move |request| match request.api_key {
        SASL_AUTHENTICATE if refuse && away.is_now() => Some(Fault::Error(REFUSED)),
        SASL_AUTHENTICATE | SASL_HANDSHAKE | API_VERSIONS => None,
        _ if away.0.load(Ordering::SeqCst) => Some(Fault::Close),
        _ => None,
    });
}

async fn both(test: impl AsyncFn(SaslBroker, ConfigBuilder, Away)) {
    let away = Away::default();
    let (broker, config) = of_tokens(&away).await;
    spoil(&broker, &away, false);
    test(broker, config, away).await;
    let away = Away::default();
    let (broker, config) = of_refusals().await;
    spoil(&broker, &away, true);
    test(broker, config, away).await;
}

/// Returns the next numbers; an empty partition reports its end without any.
async fn first(consumer: &mut Consumer) -> (i32, Vec<i32>) {
    loop {
        let (partition, numbers) = next(consumer).await;
        if !numbers.is_empty() {
            return (partition, numbers);
        }
    }
}

#[tokio::test]
async fn a_member_recovers() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Auto] {
        both(async |broker, config, away| {
            let mut config = config.build().unwrap();
            config.consumer.group_protocol = protocol;
            config.consumer.heartbeat_interval = Duration::from_millis(50);
            let client = soon(Client::connect(config)).await.unwrap();
            let topic = broker.create_topic(&client).await;
            let producer = client.producer().start().unwrap();
            let settings = client.config().consumer.clone();
            let mut consumer = client.consumer(unique("g")).config(settings).subscribe([&topic]).await.unwrap();
            produce(&producer, &topic, 0..1).await;
            assert_eq!(first(&mut consumer).await, (0, vec![0]));
            away.begins().await;
            away.ends().await;
            produce(&producer, &topic, 1..2).await;
            assert_eq!(first(&mut consumer).await, (1, vec![1]), "{protocol:?}");
            let beats =
                broker.broker().request_count(HEARTBEAT) + broker.broker().request_count(CONSUMER_GROUP_HEARTBEAT);
            assert!(beats > 0);
            soon(consumer.close()).await.unwrap();
            soon(producer.close(LONG)).await.unwrap();
            client.close().await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_subscription_recovers_and_health_has_the_reason() {
    both(async |broker, config, away| {
        let mut config = config.build().unwrap();
        config.consumer.heartbeat_interval = Duration::from_millis(50);
        let client = soon(Client::connect(config)).await.unwrap();
        let topic = broker.create_topic(&client).await;
        let producer = client.producer().start().unwrap();
        let (handled, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let handle = move |message: ailurus::Message| {
            let handled = handled.clone();
            async move { handled.send(message.value.unwrap()).unwrap() }
        };
        let subscription = client.processor(unique("g")).subscribe([&topic], handle).await.unwrap();
        produce(&producer, &topic, 0..1).await;
        assert_eq!(soon(seen.recv()).await.unwrap(), "0");
        away.begins().await;
        let problem = soon(async {
            loop {
                match subscription.health().problem {
                    Some(problem) => break problem,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        assert!(problem.contains("for "), "{problem}");
        away.ends().await;
        produce(&producer, &topic, 1..2).await;
        assert_eq!(soon(seen.recv()).await.unwrap(), "1");
        soon(async {
            while subscription.health().problem.is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        soon(subscription.shutdown()).await.unwrap();
        soon(producer.close(LONG)).await.unwrap();
        client.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_producer_recovers() {
    both(async |broker, config, away| {
        let client = soon(Client::connect(config.build().unwrap())).await.unwrap();
        let topic = broker.create_topic(&client).await;
        // Its producer id is requested during the outage.
        let producer = client.producer().start().unwrap();
        away.begins().await;
        // A topic that is not known yet is looked up for as long as the delivery timeout: longer than this outage.
        let (sent, ()) = tokio::join!(producer.send(ProducerRecord::to(&topic).value("0")), away.ends());
        soon(sent.unwrap()).await.unwrap();
        produce(&producer, &topic, 1..10).await;
        soon(producer.close(LONG)).await.unwrap();
        client.close().await;
    })
    .await;
}

/// Nothing cuts the connections here: each ends with its session, which can't be renewed while the source is away.
#[tokio::test]
async fn an_outage_of_the_token_source_is_survived() {
    const SESSION: Duration = Duration::from_millis(500);
    let away = Away::default();
    let broker = SaslBroker::embedded(|sasl| sasl.session_lifetime(SESSION)).await;
    let mut config = with_source(&broker, &away).build().unwrap();
    config.consumer.heartbeat_interval = Duration::from_millis(50);
    let client = soon(Client::connect(config)).await.unwrap();
    let topic = broker.create_topic(&client).await;
    let producer = client.producer().start().unwrap();
    let settings = client.config().consumer.clone();
    let mut consumer = client.consumer(unique("g")).config(settings).subscribe([&topic]).await.unwrap();
    produce(&producer, &topic, 0..1).await;
    assert_eq!(first(&mut consumer).await, (0, vec![0]));
    away.begins().await;
    soon(async {
        while broker.broker().connection_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    away.ends().await;
    produce(&producer, &topic, 1..2).await;
    assert_eq!(first(&mut consumer).await, (1, vec![1]));
    soon(consumer.close()).await.unwrap();
    soon(producer.close(LONG)).await.unwrap();
    client.close().await;
}
