#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

use super::*;

const PLAIN: &[u8] = b"\0alice\0secret";

fn sasl() -> Sasl {
    Sasl::default().user("alice", "secret").user("bob", "secret").token("carol", "opaque").unsecured_tokens(true)
}

fn known(sasl: &Sasl, now: Instant) -> Auth {
    let mut auth = Auth::new();
    auth.begin(sasl, "PLAIN").unwrap();
    assert!(matches!(auth.step(sasl, PLAIN, now), Outcome::Done { .. }));
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
fn nothing_is_served_before_and_all_after() {
    let (sasl, now) = (sasl(), Instant::now());
    let mut auth = Auth::new();
    assert!(auth.allows(ApiKey::ApiVersions, now) && auth.allows(ApiKey::SaslHandshake, now));
    assert!(!auth.allows(ApiKey::Metadata, now) && !auth.allows(ApiKey::SaslAuthenticate, now));
    auth.begin(&sasl, "PLAIN").unwrap();
    assert!(auth.allows(ApiKey::SaslAuthenticate, now));
    assert!(!auth.allows(ApiKey::ApiVersions, now) && !auth.allows(ApiKey::Metadata, now));
    assert!(matches!(auth.step(&sasl, PLAIN, now), Outcome::Done { lifetime: None, .. }));
    assert!(auth.allows(ApiKey::Metadata, now + Duration::from_secs(1 << 30)));
}

#[test]
fn who_is_not_known_is_told_so() {
    let (sasl, now) = (sasl(), Instant::now());
    for message in [&b"\0alice\0Secret"[..], b"\0nobody\0secret", b"bob\0alice\0secret", b"alice\0secret", b"\xff"] {
        let mut auth = Auth::new();
        auth.begin(&sasl, "PLAIN").unwrap();
        assert!(matches!(auth.step(&sasl, message, now), Outcome::Failed(ResponseError::SaslAuthenticationFailed, _)));
        assert!(!auth.allows(ApiKey::Metadata, now));
    }
    let few = Sasl::default().mechanisms(&[SaslMechanism::ScramSha256]);
    assert_eq!(Auth::new().begin(&few, "PLAIN"), Err(ResponseError::UnsupportedSaslMechanism));
    assert_eq!(few.names(), ["SCRAM-SHA-256"]);
}

#[test]
fn a_session_ends_unless_it_is_renewed_by_whom_it_is_of() {
    let (sasl, now) = (sasl().session_lifetime(Duration::from_secs(10)), Instant::now());
    let mut auth = known(&sasl, now);
    let late = now + Duration::from_secs(10);
    assert!(auth.allows(ApiKey::Fetch, late - Duration::from_millis(1)) && !auth.allows(ApiKey::Fetch, late));
    assert!(auth.allows(ApiKey::SaslHandshake, late), "it may be renewed even then");
    auth.begin(&sasl, "PLAIN").unwrap();
    assert!(!auth.allows(ApiKey::Fetch, late));
    assert!(
        matches!(auth.step(&sasl, PLAIN, late), Outcome::Done { lifetime: Some(l), .. } if l == Duration::from_secs(10))
    );
    assert!(auth.allows(ApiKey::Fetch, late));

    assert_eq!(known(&sasl, now).begin(&sasl, "SCRAM-SHA-256"), Err(ResponseError::IllegalSaslState));
    auth.begin(&sasl, "PLAIN").unwrap();
    assert!(matches!(auth.step(&sasl, b"\0bob\0secret", late), Outcome::Failed(..)), "somebody else");
    assert!(!auth.allows(ApiKey::Fetch, late));
}

#[test]
fn tokens_are_known_ones_or_those_of_nobody_s_signature() {
    let (sasl, now) = (sasl(), Instant::now());
    let hour = Duration::from_secs(3600);
    let try_token = |token: &str| {
        let mut auth = Auth::new();
        auth.begin(&sasl, "OAUTHBEARER").unwrap();
        let outcome = auth.step(&sasl, &bearer(token), now);
        (auth, outcome)
    };
    assert!(matches!(try_token("opaque").1, Outcome::Done { lifetime: None, .. }));
    let Outcome::Done { lifetime: Some(lifetime), .. } = try_token(&jws("none", SystemTime::now() + hour)).1 else {
        panic!("not taken");
    };
    assert!(lifetime <= hour && lifetime > hour - Duration::from_secs(60), "{lifetime:?}");

    for bad in ["Opaque", "", "a.b.c", &jws("RS256", SystemTime::now() + hour), &jws("none", SystemTime::now() - hour)]
    {
        let (mut auth, outcome) = try_token(bad);
        assert!(
            matches!(&outcome, Outcome::Next(text) if text == r#"{"status":"invalid_token"}"#),
            "{bad}: {outcome:?}"
        );
        // Whatever is sent now.
        assert!(matches!(auth.step(&sasl, &bearer("opaque"), now), Outcome::Failed(..)));
    }
}

#[test]
fn settings_show_neither_passwords_nor_tokens() {
    let shown = format!("{:?}", sasl());
    assert!(shown.contains("alice") && shown.contains("carol"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("opaque"), "{shown}");
}
