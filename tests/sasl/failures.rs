//! Rejected logins and mismatched ports: each has its own error, and none is retried.

use super::*;

async fn refusal(config: ConfigBuilder) -> Error {
    soon(Client::connect(config.build().unwrap())).await.unwrap_err()
}

#[track_caller]
fn says(e: &Error, parts: &[&str]) {
    assert!(!e.is_retriable());
    contains(e, parts);
}

#[track_caller]
fn contains(e: &Error, parts: &[&str]) {
    assert_eq!(e.kind(), ErrorKind::Authentication, "{e:?}");
    for part in parts {
        assert!(format!("{e:#}").contains(part), "{part:?} is not in {e:#}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user() {
    let broker = SaslBroker::any().await;
    for login in [SaslConfig::plain, SaslConfig::scram_sha_256, SaslConfig::scram_sha_512] {
        for (user, password) in [(broker.user.as_str(), "wrong-password"), ("nobody", "wrong-password")] {
            let login = login(user, password);
            let mechanism = login.mechanism.name();
            let e = refusal(broker.config(login)).await;
            says(&e, &[&format!("refused user {user:?} by {mechanism}: "), "Credentials::password"]);
            assert!(!format!("{e:#}").contains("wrong-password"), "{e:#}");
        }
    }
}

#[tokio::test]
async fn a_rejected_login_is_not_retried() {
    let broker = SaslBroker::embedded(|sasl| sasl).await;
    let e = refusal(broker.config(SaslConfig::plain(&broker.user, "wrong"))).await;
    says(&e, &["Authentication failed: Invalid username or password"]);
    assert_eq!(broker.broker().request_count(SASL_AUTHENTICATE), 1);
}

#[tokio::test]
async fn a_mechanism_that_is_not_offered() {
    let broker =
        SaslBroker::embedded(|s| s.mechanisms(&[SaslMechanism::ScramSha256, SaslMechanism::ScramSha512])).await;
    let e = refusal(broker.config(SaslConfig::plain("alice", "secret"))).await;
    let what =
        "does not offer the SASL mechanism PLAIN: it offers SCRAM-SHA-256, SCRAM-SHA-512; change SaslConfig::mechanism";
    says(&e, &[what]);
    assert_eq!(broker.broker().request_count(SASL_AUTHENTICATE), 0, "no credential was sent");
}

#[tokio::test]
async fn a_port_with_sasl_and_a_client_without() {
    let broker = SaslBroker::any().await;
    let e = refusal(plain_config(&broker.bootstrap)).await;
    says(&e, &["requires a login: this listener has SASL (it offers ", "SCRAM-SHA-256", "set it to SASL_PLAINTEXT"]);
}

#[tokio::test]
async fn a_port_without_sasl_and_a_client_with() {
    let broker = support::broker().await;
    for login in [SaslConfig::scram_sha_256("alice", "secret"), SaslConfig::plain("alice", "secret")] {
        let config = broker.config().security_protocol(SecurityProtocol::SaslPlaintext);
        let e = refusal(config.sasl(login.allow_cleartext(true))).await;
        says(&e, &["does not use logins: this listener is without SASL", "Config::security_protocol"]);
    }
}

#[tokio::test]
async fn a_broker_without_logins_at_all() {
    use ailurus_broker::Versions;
    let versions = Versions::default().without(SASL_HANDSHAKE).without(SASL_AUTHENTICATE);
    let broker = Broker::start(BrokerConfig::default().versions(versions)).await.unwrap();
    let config = plain_config(&broker.bootstrap()).security_protocol(SecurityProtocol::SaslPlaintext);
    let e = refusal(config.sasl(SaslConfig::scram_sha_256("alice", "secret"))).await;
    says(&e, &["does not use logins: this listener is without SASL"]);
}

#[tokio::test]
async fn expired_and_unknown_tokens() {
    let broker = SaslBroker::any().await;
    let of = |token: String| {
        let login = SaslConfig::oauthbearer(move || {
            let token = token.clone();
            async move { Ok(token.into()) }
        });
        refusal(broker.config(login))
    };
    let e = of(jws_until(&broker.user, 1_699_999_000, 1_700_000_000)).await;
    says(&e, &["refused the token by OAUTHBEARER, which expired at 2023-11-14T22:13:20Z: ", "renew it"]);
    let e = of("not-a-known-token".into()).await;
    says(&e, &["refused the token by OAUTHBEARER: ", "issuer, audience and scope"]);
    assert!(!format!("{e:#}").contains("not-a-known-token"), "{e:#}");
}

#[tokio::test]
async fn no_token_at_all() {
    let broker = SaslBroker::embedded(|sasl| sasl).await;
    let away = SaslConfig::oauthbearer(|| async { Err("the identity provider is away".into()) });
    let e = refusal(broker.config(away)).await;
    contains(
        &e,
        &[
            "can't log in to 127.0.0.1:",
            "by OAUTHBEARER: the token provider has no token: the identity provider is away",
        ],
    );
    assert!(e.is_retriable(), "it may be back");
    let e = refusal(broker.config(SaslConfig::oauthbearer_file("/nowhere/token"))).await;
    contains(&e, &["the token file /nowhere/token can't be read: No such file"]);
    assert_eq!(broker.broker().request_count(SASL_AUTHENTICATE), 0);
}

#[tokio::test]
async fn a_hanging_token_provider_times_out() {
    let broker = SaslBroker::embedded(|sasl| sasl).await;
    let hangs = SaslConfig::oauthbearer(std::future::pending);
    let e = refusal(broker.config(hangs).connect_timeout(Duration::from_millis(200))).await;
    assert_eq!(e.kind(), ErrorKind::Connect, "{e}");
    assert!(format!("{e:#}").contains("(OAUTHBEARER) took longer than 200ms"), "{e:#}");
}
