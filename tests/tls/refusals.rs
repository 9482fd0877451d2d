//! Each TLS failure has its own error.

use std::time::Duration;

use ailurus::{ErrorKind, SecurityProtocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Connecting fails so that a program may try again, and says all of `parts`.
async fn refused(config: ConfigBuilder, parts: &[&str]) {
    let e = error(config).await;
    assert_eq!(e.kind(), ErrorKind::Connect, "{e}");
    for part in parts {
        assert!(format!("{e:#}").contains(part), "{part:?} is not in {e:#}");
    }
}

#[tokio::test]
async fn an_unknown_authority() {
    let secured = Secured::start(|a| a.issue(HERE).server()).await;
    let mut tls = secured.tls();
    tls.ca_file = Some(secured.file("other.pem", &Authority::new("others").own().cert));
    refused(
        secured.config(tls),
        &["unknown CA: ", "signed by none of the authorities in ", "other.pem, TlsConfig::ca_file"],
    )
    .await;
}

#[tokio::test]
async fn a_certificate_that_has_expired() {
    let secured = Secured::start(|a| a.issue_for_years(HERE, 2000, 2001).server()).await;
    refused(
        secured.config(secured.tls()),
        &["has expired: it was valid until 2001-01-01T00:00:00Z", "this machine's clock says"],
    )
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet() {
    let secured = Secured::start(|a| a.issue_for_years(HERE, 2800, 2900).server()).await;
    refused(secured.config(secured.tls()), &["not valid yet: it is from 2800-01-01T00:00:00Z on"]).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_or_address() {
    let secured = Secured::start(|a| a.issue(&["redpanda-0.example.com", "10.0.0.1"]).server()).await;
    let mismatch = "host name mismatch: the broker's certificate is not for";
    let names =
        "but for redpanda-0.example.com, 10.0.0.1: reach the broker by such a name, or set TlsConfig::server_name";
    refused(secured.config(secured.tls()), &[&format!("{mismatch} 127.0.0.1, {names}")]).await;
    let mut tls = secured.tls();
    tls.server_name = Some("redpanda-1.example.com".into());
    refused(secured.config(tls), &[&format!("{mismatch} redpanda-1.example.com, {names}")]).await;
}

#[tokio::test]
async fn the_authority_s_own_certificate() {
    let secured = Secured::start(|a| a.own().server()).await;
    let mut tls = secured.tls();
    tls.server_name = Some("localhost".into());
    refused(secured.config(tls), &["an authority's own certificate (CA:TRUE)"]).await;
}

#[tokio::test]
async fn missing_and_untrusted_client_certificates() {
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let secured = Secured::start(|a| a.issue(HERE).server_of(versions, Some(a))).await;
        let wanted =
            "the broker wants a client certificate, and none is set: name one and its key in TlsConfig::cert_file";
        refused(secured.config(secured.tls()), &[wanted]).await;
        let stranger = Authority::new("others").issue(&["client"]);
        refused(
            secured.config(secured.tls_as(&stranger)),
            &["the broker refused the client certificate, ", "client.pem, TlsConfig::cert_file: it"],
        )
        .await;
        let old = secured.authority.issue_for_years(&["client"], 2000, 2001);
        refused(secured.config(secured.tls_as(&old)), &["the broker refused the client certificate, "]).await;
    }
}

#[tokio::test]
async fn plaintext_to_a_tls_port() {
    let secured = Secured::start(|a| a.issue(HERE).server()).await;
    let config = config(&secured.broker).security_protocol(SecurityProtocol::Plaintext);
    refused(config, &["this port expects TLS, and the connection is plaintext: set Config::security_protocol"]).await;
}

/// Some servers of TLS close without an alert when they are spoken to in plaintext.
#[tokio::test]
async fn plaintext_to_a_tls_port_that_closes_silently() {
    let secured = Secured::start(|a| a.issue(HERE).server()).await;
    let behind = secured.broker.address(0).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let proxy = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut first = [0];
            client.read_exact(&mut first).await.unwrap();
            if first == [0x16] {
                let mut server = tokio::net::TcpStream::connect(&behind).await.unwrap();
                server.write_all(&first).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        }
    });
    refused(Config::builder().brokers(&at), &["this port expects TLS, and the connection is plaintext"]).await;
    proxy.abort();
}

#[tokio::test]
async fn tls_to_a_plaintext_port() {
    let plaintext = Broker::start(BrokerConfig::default()).await.unwrap();
    refused(
        config(&plaintext),
        &["this port is plaintext, and the connection is TLS: use the port of the broker's TLS listener"],
    )
    .await;
}

/// Responds to each connection with `response` after its first bytes, then closes it.
async fn responding(response: &'static [u8]) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut received = [0; 4096];
            _ = client.read(&mut received).await;
            _ = client.write_all(response).await;
        }
    });
    (at, task)
}

#[tokio::test]
async fn an_unknown_protocol_is_not_called_plaintext() {
    for (response, says) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "the peer does not speak TLS"),
        (b"", "the connection was closed at the first bytes of TLS"),
    ] {
        let (at, task) = responding(response).await;
        refused(Config::builder().brokers(&at).security_protocol(SecurityProtocol::Ssl), &[says]).await;
        task.abort();
    }
}

#[tokio::test]
async fn an_endless_handshake_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // accepts, by its backlog, and is silent
    let at = listener.local_addr().unwrap().to_string();
    let config = Config::builder().brokers(&at).security_protocol(SecurityProtocol::Ssl);
    refused(config.connect_timeout(Duration::from_millis(50)), &["did not complete the TLS handshake within 50ms"])
        .await;
}
