#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use tokio::time::Instant;

use super::*;

const PLAIN: &[u8] = b"\0alice\0secret";

fn sasl() -> Sasl {
    Sasl::default().user("alice", "secret").user("bob", "secret").token("carol", "opaque").unsecured_tokens(true)
}

fn authenticated(sasl: &Sasl, now: Instant) -> Auth {
    let mut auth = Auth::new();
    auth.handshake(sasl, "PLAIN").unwrap();
    assert!(matches!(auth.authenticate(sasl, PLAIN, now), AuthOutcome::Done { .. }));
    auth
}

fn bearer(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

fn jws(alg: &str, expires: SystemTime) -> String {
    let expires = expires.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.", part(format!(r#"{{"alg":"{alg}"}}"#)), part(format!(r#"{{"sub":"dave","exp":{expires}}}"#)))
}

#[test]
fn requests_need_authentication() {
    let (sasl, now) = (sasl(), Instant::now());
    let mut auth = Auth::new();
    assert!(auth.allows(ApiKey::ApiVersions, now) && auth.allows(ApiKey::SaslHandshake, now));
    assert!(!auth.allows(ApiKey::Metadata, now) && !auth.allows(ApiKey::SaslAuthenticate, now));
    auth.handshake(&sasl, "PLAIN").unwrap();
    assert!(auth.allows(ApiKey::SaslAuthenticate, now));
    assert!(!auth.allows(ApiKey::ApiVersions, now) && !auth.allows(ApiKey::Metadata, now));
    assert!(matches!(auth.authenticate(&sasl, PLAIN, now), AuthOutcome::Done { lifetime: None, .. }));
    assert!(auth.allows(ApiKey::Metadata, now + Duration::from_secs(1 << 30)));
}

#[test]
fn unknown_users_are_rejected() {
    let (sasl, now) = (sasl(), Instant::now());
    for message in [&b"\0alice\0Secret"[..], b"\0nobody\0secret", b"bob\0alice\0secret", b"alice\0secret", b"\xff"] {
        let mut auth = Auth::new();
        auth.handshake(&sasl, "PLAIN").unwrap();
        assert!(matches!(
            auth.authenticate(&sasl, message, now),
            AuthOutcome::Failed(ResponseError::SaslAuthenticationFailed, _)
        ));
        assert!(!auth.allows(ApiKey::Metadata, now));
    }
    let few = Sasl::default().mechanisms(&[SaslMechanism::ScramSha256]);
    assert_eq!(Auth::new().handshake(&few, "PLAIN"), Err(ResponseError::UnsupportedSaslMechanism));
    assert_eq!(few.mechanism_names(), ["SCRAM-SHA-256"]);
}

#[test]
fn session_expires_unless_the_same_principal_renews_it() {
    let (sasl, now) = (sasl().session_lifetime(Duration::from_secs(10)), Instant::now());
    let mut auth = authenticated(&sasl, now);
    let late = now + Duration::from_secs(10);
    assert!(auth.allows(ApiKey::Fetch, late - Duration::from_millis(1)) && !auth.allows(ApiKey::Fetch, late));
    assert!(auth.allows(ApiKey::SaslHandshake, late), "it may be renewed even then");
    auth.handshake(&sasl, "PLAIN").unwrap();
    assert!(!auth.allows(ApiKey::Fetch, late));
    assert!(
        matches!(auth.authenticate(&sasl, PLAIN, late), AuthOutcome::Done { lifetime: Some(l), .. } if l == Duration::from_secs(10))
    );
    assert!(auth.allows(ApiKey::Fetch, late));

    assert_eq!(authenticated(&sasl, now).handshake(&sasl, "SCRAM-SHA-256"), Err(ResponseError::IllegalSaslState));
    auth.handshake(&sasl, "PLAIN").unwrap();
    assert!(matches!(auth.authenticate(&sasl, b"\0bob\0secret", late), AuthOutcome::Failed(..)), "somebody else");
    assert!(!auth.allows(ApiKey::Fetch, late));
}

#[test]
fn known_and_unsecured_tokens_are_accepted() {
    let (sasl, now) = (sasl(), Instant::now());
    let hour = Duration::from_secs(3600);
    let try_token = |token: &str| {
        let mut auth = Auth::new();
        auth.handshake(&sasl, "OAUTHBEARER").unwrap();
        let outcome = auth.authenticate(&sasl, &bearer(token), now);
        (auth, outcome)
    };
    assert!(matches!(try_token("opaque").1, AuthOutcome::Done { lifetime: None, .. }));
    let AuthOutcome::Done { lifetime: Some(lifetime), .. } = try_token(&jws("none", SystemTime::now() + hour)).1 else {
        panic!("not taken");
    };
    assert!(lifetime <= hour && lifetime > hour - Duration::from_secs(60), "{lifetime:?}");

    for malformed in
        ["Opaque", "", "a.b.c", &jws("RS256", SystemTime::now() + hour), &jws("none", SystemTime::now() - hour)]
    {
        let (mut auth, outcome) = try_token(malformed);
        assert!(
            matches!(&outcome, AuthOutcome::Continue(text) if text == r#"{"status":"invalid_token"}"#),
            "{malformed}: {outcome:?}"
        );
        // Any message fails the exchange now.
        assert!(matches!(auth.authenticate(&sasl, &bearer("opaque"), now), AuthOutcome::Failed(..)));
    }
}

#[test]
fn debug_output_hides_passwords_and_tokens() {
    let shown = format!("{:?}", sasl());
    assert!(shown.contains("alice") && shown.contains("carol"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("opaque"), "{shown}");
}
