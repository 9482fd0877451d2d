//! From the first record to the last, by each mechanism.

use super::*;

/// Produces, reads as a group, commits and looks, all of it logged in.
pub(super) async fn session(client: &Client) {
    let (topic, group) = (unique("t"), unique("g"));
    let admin = Admin::new(client);
    admin.create_topic(&topic, 3, None).await.unwrap();
    let producer = client.producer().start().unwrap();
    produce(&producer, &topic, 0..300).await;
    let mut consumer = client.consumer(&group).subscribe([&topic]).await.unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 300 {
        for n in next(&mut consumer).await.1 {
            assert!(seen.insert(n), "{n} came twice");
        }
    }
    consumer.close().await.unwrap();
    producer.close(LONG).await.unwrap();
    assert!(admin.list_groups().await.unwrap().iter().any(|g| g.group == group));
    admin.delete_group(&group).await.unwrap();
    admin.delete_topic(&topic).await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn each_mechanism_produces_and_reads() {
    let broker = SaslBroker::any().await;
    for login in broker.logins() {
        session(&broker.client(login).await).await;
    }
}

#[tokio::test]
async fn a_token_in_a_file_and_one_with_extensions() {
    let broker = SaslBroker::any().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{}\n", jws(&broker.user, LONG))).unwrap();
    let mut login = SaslConfig::oauthbearer_file(&file);
    let ailurus::SaslMechanism::OAuthBearer(bearer) = &mut login.mechanism else { panic!("not by a token") };
    bearer.extensions.push(("traceId".into(), "a b".into()));
    broker.client(login).await.close().await;
}

#[tokio::test]
async fn a_password_is_used_verbatim() {
    for password in [" ", "a,b=c", "pässwörd✓", "\"'\\"] {
        let sasl = Sasl::default().user("a,b=c ✓", password);
        let broker = Broker::start(BrokerConfig::default().sasl(sasl)).await.unwrap();
        for login in [SaslConfig::plain, SaslConfig::scram_sha_256, SaslConfig::scram_sha_512] {
            let config = plain_config(&broker.bootstrap())
                .security_protocol(SecurityProtocol::SaslPlaintext)
                .sasl(login("a,b=c ✓", password).allow_cleartext(true));
            soon(Client::connect(config.build().unwrap())).await.unwrap().close().await;
        }
        broker.shutdown().await;
    }
}
