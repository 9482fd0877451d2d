//! Files: those that can't be used, and those that change while a client runs.

use ailurus::ErrorKind;

use super::*;

/// Connecting fails for good, and says all of `parts`.
async fn unusable(secured: &Secured, tls: TlsConfig, parts: &[&str]) {
    let e = error(secured.config(tls)).await;
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
    for part in parts {
        assert!(format!("{e:#}").contains(part), "{part:?} is not in {e:#}");
    }
}

#[tokio::test]
async fn unusable_files_are_named() {
    let secured = Secured::start(|a| a.issue(HERE).server()).await;
    let own = secured.authority.issue(&["client"]);

    let mut tls = secured.tls();
    tls.ca_file = Some(secured.dir.path().join("none.pem"));
    unusable(&secured, tls, &["TlsConfig::ca_file is ", "none.pem: it can't be read: "]).await;

    let mut tls = secured.tls();
    tls.ca_file = Some(secured.file("empty.pem", "no certificate\n"));
    unusable(&secured, tls, &["empty.pem: there is no certificate in it, as PEM"]).await;

    let mut tls = secured.tls_as(&own);
    tls.key_file = tls.cert_file.clone();
    unusable(&secured, tls, &["TlsConfig::key_file is ", "there is no private key in it"]).await;

    let tls = secured.tls_as(&Issued { key: own.key.replace("PRIVATE", "ENCRYPTED PRIVATE"), ..own.clone() });
    unusable(&secured, tls, &["client.key: the key is encrypted: write it without a password"]).await;

    let broken = own.key.replace("-----END", "----");
    let tls = secured.tls_as(&Issued { key: broken, ..own.clone() });
    unusable(&secured, tls, &["client.key: it is no well-formed PEM"]).await;

    let mut tls = secured.tls();
    tls.server_name = Some("not a name".into());
    unusable(&secured, tls, &["\"not a name\" is neither a DNS name nor an IP address", "TlsConfig::server_name"])
        .await;
}

/// graviola and ring know a key's public half; with RustCrypto the broker finds out.
#[tokio::test]
async fn a_key_of_another_certificate_is_rejected() {
    let secured = Secured::start(|a| a.issue(HERE).server_of(rustls::ALL_VERSIONS, Some(a))).await;
    let (one, other) = (secured.authority.issue(&["one"]), secured.authority.issue(&["other"]));
    let e = format!("{:#}", error(secured.config(secured.tls_as(&Issued { cert: one.cert, key: other.key }))).await);
    let says = ["it is not the key of the first certificate in ", "the broker refused the client certificate, "];
    assert!(says.iter().any(|says| e.contains(says)), "{e}");
}

#[tokio::test]
async fn certificate_and_key_may_be_one_file() {
    let secured = Secured::start(|a| a.issue(HERE).server_of(rustls::ALL_VERSIONS, Some(a))).await;
    let own = secured.authority.issue(&["client"]);
    let mut tls = secured.tls();
    let both = secured.file("both.pem", &format!("{}{}", own.key, own.cert));
    (tls.cert_file, tls.key_file) = (Some(both.clone()), Some(both));
    Client::connect(secured.config(tls).build().unwrap()).await.unwrap().close().await;
}

#[tokio::test]
async fn keys_are_not_logged() {
    let secured = Secured::start(|a| a.issue(HERE).server_of(rustls::ALL_VERSIONS, Some(a))).await;
    let own = secured.authority.issue(&["client"]);
    let client = Client::connect(secured.config(secured.tls_as(&own)).build().unwrap()).await.unwrap();
    let shown = format!("{client:?}");
    assert!(shown.contains("client.key"), "the settings are shown: {shown}");
    assert!(own.key.lines().all(|line| !shown.contains(line)), "{shown}");
    // Nor as the bytes that the file has.
    let bytes = own.key.as_bytes().iter().take(40).map(u8::to_string).collect::<Vec<_>>().join(", ");
    assert!(!shown.contains(&bytes), "{shown}");
    client.close().await;
}

/// Ends all connections, so that a client has to make new ones.
pub async fn restart_nodes(broker: &Broker) {
    for node in 0..3 {
        broker.stop_node(node).await.unwrap();
    }
    for node in 0..3 {
        broker.start_node(node).await.unwrap();
    }
}

#[tokio::test]
async fn new_connections_use_changed_files() {
    let secured = Secured::start(|a| a.issue(HERE).server_of(rustls::ALL_VERSIONS, Some(a))).await;
    let first = secured.authority.issue(&["client"]);
    let tls = secured.tls_as(&first);
    let client = Client::connect(secured.config(tls).build().unwrap()).await.unwrap();
    secured.broker.create_topic("orders", 3).unwrap();
    let say = |text: &str| vec![text.as_bytes().to_vec()];
    produce(&client, "orders", &say("1"), Compression::None).await;

    // All three change, and the brokers with them: what was read before leads nowhere.
    let next = Authority::new("the next");
    let own = next.issue(&["client"]);
    secured.broker.set_tls(Some(next.issue(HERE).server_of(rustls::ALL_VERSIONS, Some(&next))));
    secured.file("ca.pem", &next.own().cert);
    secured.file("client.pem", &own.cert);
    secured.file("client.key", &own.key);
    restart_nodes(&secured.broker).await;
    produce(&client, "orders", &say("2"), Compression::None).await;

    // A rotation that is half done: the certificate is there, its key is being written.
    secured.file("client.pem", &next.issue(&["client"]).cert);
    secured.file("client.key", "-----BEGIN PRIVATE KEY-----\n");
    restart_nodes(&secured.broker).await;
    produce(&client, "orders", &say("3"), Compression::None).await;

    assert_eq!(consume(&client, "orders", 3).await, [b"1", b"2", b"3"]);
    client.close().await;
}
