//! Secured connections: records go there and back, and each error names its cause.
//!
//! One node has all listeners; it is shared by the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ailurus_test_support::certs::{Authority, Issued, file};
use ailurus_test_support::process::{Process, until};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::ailurus::Ailurus;
use crate::cluster::Kafka;
use crate::tools::{has_kafka_and, has_programs, report, root};

/// Listeners, as offsets of the node's port.
const PLAINTEXT: u16 = 0;
const SASL: u16 = 2;
const TLS: u16 = 3;
const SASL_TLS: u16 = 4;
/// TLS with required client certificates.
const CLIENT_CERTIFICATES: u16 = 5;
/// TLS with a certificate that has expired, of another authority.
const EXPIRED: u16 = 6;
/// SASL with SCRAM-SHA-256 alone.
const SCRAM_ONLY: u16 = 7;

const USER: &str = "alice";
const PASSWORD: &str = "Pass-w0rd-of-alice";
/// Lifetime of sessions: Kafka's `connections.max.reauth.ms`.
const SESSION_MS: &str = "2500";
const RECORDS: u32 = 1000;
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

struct Bed {
    kafka: Kafka,
    other_authority: Authority,
}

fn bed() -> Option<&'static Bed> {
    static BED: OnceLock<Option<Bed>> = OnceLock::new();
    BED.get_or_init(|| has_kafka_and(module_path!(), &["openssl"]).then(Bed::start)).as_ref()
}

impl Bed {
    fn start() -> Self {
        let kafka = Kafka::prepare(1).set("KAFKA_SASL", &format!("{USER}:{PASSWORD}")).set("KAFKA_TLS", "1");
        let kafka = kafka.step("keys");
        let other_authority = Authority::new("another-ca");
        let certificates = kafka.directory().join("tls");
        let Issued { cert, key } = other_authority.issue_for_years(&NAMES, 2000, 2001);
        let expired = file(&certificates, "expired.pem", &(key + &cert));
        Self { kafka: kafka.run(|kafka| properties(kafka, &expired)), other_authority }
    }

    fn certificate(&self, name: &str) -> String {
        self.kafka.directory().join("tls").join(name).to_str().unwrap().to_owned()
    }

    /// Writes a certificate, or its key, of the other authority.
    fn other(&self, name: &str, pem: &str) -> String {
        file(self.kafka.directory(), name, pem).to_str().unwrap().to_owned()
    }

    fn plaintext(&self, listener: u16) -> Ailurus {
        Ailurus::new(&self.kafka.address(listener))
    }

    /// Returns the command with TLS, which trusts the node's authority.
    fn tls(&self, listener: u16) -> Ailurus {
        let ailurus = self.plaintext(listener).set("REDPANDA_SECURITY_PROTOCOL", "SSL");
        ailurus.set("REDPANDA_TLS_CA_FILE", self.certificate("ca.crt"))
    }

    fn sasl(&self, listener: u16, mechanism: &str) -> Ailurus {
        let ailurus = self.plaintext(listener).set("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT");
        ailurus.set("REDPANDA_SASL_ALLOW_CLEARTEXT", "true").set("REDPANDA_SASL_MECHANISM", mechanism)
    }

    fn sasl_over_tls(&self, mechanism: &str) -> Ailurus {
        let ailurus = self.tls(SASL_TLS).set("REDPANDA_SECURITY_PROTOCOL", "SASL_SSL");
        ailurus.set("REDPANDA_SASL_MECHANISM", mechanism)
    }
}

/// Returns the listeners beside those of `scripts/kafka-local.sh`, and how each is secured.
fn properties(kafka: &Kafka, expired: &Path) -> String {
    let listeners = [
        ("PLAINTEXT", PLAINTEXT),
        ("SASL_PLAINTEXT", SASL),
        ("SSL", TLS),
        ("SASL_SSL", SASL_TLS),
        ("CLIENT_CERTIFICATES", CLIENT_CERTIFICATES),
        ("EXPIRED", EXPIRED),
        ("SCRAM_ONLY", SCRAM_ONLY),
    ];
    let listeners: Vec<_> =
        listeners.iter().map(|(name, offset)| format!("{name}://{}", kafka.address(*offset))).collect();
    let listeners = listeners.join(",");
    let controller = kafka.address(1);
    let expired = expired.display();
    let module = "org.apache.kafka.common.security";
    let tokens = format!(
        r#"oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";"#
    );
    format!(
        "listeners={listeners},CONTROLLER://{controller}\n\
         advertised.listeners={listeners}\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,\
         SASL_SSL:SASL_SSL,CLIENT_CERTIFICATES:SSL,EXPIRED:SSL,SCRAM_ONLY:SASL_PLAINTEXT\n\
         listener.name.client_certificates.ssl.client.auth=required\n\
         listener.name.expired.ssl.keystore.location={expired}\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
         listener.name.sasl_plaintext.{tokens}\n\
         listener.name.sasl_ssl.{tokens}\n\
         listener.name.scram_only.sasl.enabled.mechanisms=SCRAM-SHA-256\n\
         listener.name.scram_only.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
         connections.max.reauth.ms={SESSION_MS}"
    )
}

/// Records go there and back, as a member of a group, and all brokers are reached.
#[track_caller]
fn accepted(what: &str, ailurus: &Ailurus) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let topic = format!("security-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    ailurus.ok(&["topic", "create", &topic, "--partitions", "3"]);
    ailurus.produce_numbers("", RECORDS, &[&topic, "--compression", "gzip"]);
    let max = RECORDS.to_string();
    let records = ailurus.consume(&[&topic, "--group", &topic, "--from", "earliest", "--max", &max]);
    let number = |record: &Value| match &record["value"] {
        Value::String(text) => text.parse().unwrap(),
        number => u32::try_from(number.as_u64().unwrap()).unwrap(),
    };
    let mut read: Vec<u32> = records.iter().map(number).collect();
    read.sort_unstable();
    assert!(read == (1..=RECORDS).collect::<Vec<_>>(), "{what}: other records came back: {read:?}");
    ailurus.set("REDPANDA_HEALTH_TIMEOUT", "60000").ok(&["health"]);
    report(module_path!(), format_args!("{what}: {RECORDS} records there and back, all brokers reached"));
}

/// A command fails with an error that has the text; prints the error as a user sees it.
#[track_caller]
fn refused(what: &str, text: &str, ailurus: &Ailurus) {
    let ended = ailurus.run(&["topic", "list"]);
    let printed = ended.stdout + &ended.stderr;
    assert_ne!(ended.code, 0, "{what}: it was accepted: {printed}");
    assert!(printed.contains(text), "{what}: {text:?} is not in: {printed}");
    report(module_path!(), format_args!("{what}: {}", printed.trim_end()));
}

/// A command that logs everything logs in, and the log does not have the secret, in base64 neither.
#[track_caller]
fn hidden(secret: &str, ailurus: &Ailurus) {
    let ended = ailurus.run(&["topic", "list", "--log", "trace"]).expect(0);
    let log = ended.stdout + &ended.stderr;
    assert!(log.contains("logged in"), "not everything is logged: {log}");
    let plain = format!("\0{USER}\0{secret}");
    for text in [secret, &STANDARD_NO_PAD.encode(secret), &STANDARD_NO_PAD.encode(plain)] {
        assert!(!log.contains(text), "a secret is in the log: {text}");
    }
}

/// Returns a token that nobody has signed.
fn token(expiry_s: u64) -> String {
    let claims = format!(r#"{{"sub":"{USER}","iat":1,"exp":{expiry_s}}}"#);
    format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims))
}

/// Returns a token that is valid for an hour.
fn valid_token() -> String {
    token(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600)
}

#[test]
fn tls_is_accepted_and_its_errors_name_their_cause() {
    let Some(bed) = bed() else { return };
    let tls = bed.tls(TLS);
    accepted("TLS", &tls);
    let other = bed.other("other.crt", &bed.other_authority.own().cert);
    refused("unknown CA", "unknown CA: the broker", &tls.set("REDPANDA_TLS_CA_FILE", other));
    let another_name = tls.set("REDPANDA_TLS_SERVER_NAME", "kafka.example.com");
    refused("host mismatch", "host name mismatch: the broker", &another_name);
    refused("plaintext to a TLS port", "this port expects TLS", &bed.plaintext(TLS));
    refused("TLS to a plaintext port", "this port is plaintext", &bed.tls(PLAINTEXT));
}

#[test]
fn client_certificates_are_required_and_checked() {
    let Some(bed) = bed() else { return };
    let tls = bed.tls(CLIENT_CERTIFICATES);
    let with = |cert: String, key: String| tls.set("REDPANDA_TLS_CERT_FILE", cert).set("REDPANDA_TLS_KEY_FILE", key);
    let own = with(bed.certificate("client.crt"), bed.certificate("client.key"));
    accepted("TLS with a client certificate", &own);
    refused("no client certificate", "the broker wants a client certificate", &tls);
    let stranger = bed.other_authority.issue(&NAMES);
    let stranger = with(bed.other("stranger.crt", &stranger.cert), bed.other("stranger.key", &stranger.key));
    let what = "a client certificate of another CA";
    refused(what, "the broker refused the client certificate", &stranger);
}

#[test]
fn an_expired_certificate_is_refused() {
    let Some(bed) = bed() else { return };
    let authority = bed.other("expired-ca.crt", &bed.other_authority.own().cert);
    let tls = bed.tls(EXPIRED).set("REDPANDA_TLS_CA_FILE", authority);
    refused("expired certificate", "has expired: it was valid until 2001-01-01", &tls);
}

/// Logs in by the password, and not by another.
fn logs_in_by_password(what: &str, mechanism: &str, ailurus: &Ailurus) {
    let ailurus = ailurus.set("REDPANDA_SASL_USERNAME", USER).set("REDPANDA_SASL_PASSWORD", PASSWORD);
    accepted(what, &ailurus);
    hidden(PASSWORD, &ailurus);
    let wrong = ailurus.set("REDPANDA_SASL_PASSWORD", "wrong");
    let error = format!("refused user \"{USER}\" by {mechanism}");
    refused(&format!("wrong password by {what}"), &error, &wrong);
}

#[test]
fn passwords_log_in_and_stay_hidden() {
    let Some(bed) = bed() else { return };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        logs_in_by_password(mechanism, mechanism, &bed.sasl(SASL, mechanism));
    }
}

#[test]
fn passwords_log_in_over_tls_and_stay_hidden() {
    let Some(bed) = bed() else { return };
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        logs_in_by_password(&format!("{mechanism} over TLS"), mechanism, &bed.sasl_over_tls(mechanism));
    }
}

#[test]
fn tokens_of_a_file_log_in_and_stay_hidden() {
    let Some(bed) = bed() else { return };
    let (ailurus, valid) = (bed.sasl(SASL, "OAUTHBEARER"), valid_token());
    let of_file = |file: String| ailurus.set("REDPANDA_SASL_OAUTH_TOKEN_FILE", file);
    let with_token = of_file(ailurus.file("token", &valid));
    accepted("OAUTHBEARER", &with_token);
    hidden(&valid, &with_token);
    let expired = of_file(ailurus.file("expired", &token(1_700_000_000)));
    refused("expired token", "refused the token by OAUTHBEARER, which expired at 2023-11-14", &expired);
    refused("no token file", "nowhere can't be read", &of_file("nowhere".to_owned()));
}

#[test]
fn tokens_of_an_endpoint_log_in_and_stay_hidden() {
    let Some(bed) = bed() else { return };
    if !has_programs(module_path!(), &["python3"]) {
        return;
    }
    let (valid, port) = (valid_token(), bed.kafka.directory().join("endpoint-port"));
    let mut endpoint = Command::new("python3");
    endpoint.arg(root().join("tests/kafka/programs/token-endpoint.py"));
    let mut endpoint = Process::spawn({
        endpoint.args([&bed.certificate("server.pem"), &valid]).arg(&port);
        endpoint
    });
    let port = await_port(&mut endpoint, &port);

    let ailurus = bed.sasl_over_tls("OAUTHBEARER").set("REDPANDA_SASL_OAUTH_CLIENT_ID", "shop");
    let ailurus = ailurus.set("REDPANDA_SASL_OAUTH_TOKEN_ENDPOINT", format!("https://localhost:{port}/token"));
    let ailurus = ailurus.set("REDPANDA_SASL_OAUTH_CLIENT_SECRET", "s3cret");
    let trusting = ailurus.set("REDPANDA_SASL_OAUTH_CA_FILE", bed.certificate("ca.crt"));
    accepted("OAUTHBEARER over TLS, by a token of an endpoint", &trusting);
    hidden(&valid, &trusting);
    hidden("s3cret", &trusting);
    let wrong = trusting.set("REDPANDA_SASL_OAUTH_CLIENT_SECRET", "wrong");
    refused("wrong secret of a client", "the endpoint refused client \"shop\" with 401", &wrong);
    refused("an endpoint of an unknown CA", "REDPANDA_SASL_OAUTH_CA_FILE", &ailurus);
}

/// Waits until the endpoint has written its port.
#[track_caller]
fn await_port(endpoint: &mut Process, file: &PathBuf) -> u16 {
    let port = until(|| {
        assert!(!endpoint.has_ended(), "the token endpoint ended");
        fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
    });
    port.expect("the token endpoint listens")
}

#[test]
fn logins_that_do_not_fit_the_listener_name_the_setting() {
    let Some(bed) = bed() else { return };
    let with_password = |listener| {
        let ailurus = bed.sasl(listener, "PLAIN").set("REDPANDA_SASL_USERNAME", USER);
        ailurus.set("REDPANDA_SASL_PASSWORD", PASSWORD)
    };
    let without_tls = with_password(SASL).set("REDPANDA_SASL_ALLOW_CLEARTEXT", "false");
    refused("a password without TLS", "anyone on the way could read the password", &without_tls);
    let error = "requires a login: this listener has SASL";
    refused("SASL port without SASL", error, &bed.plaintext(SASL));
    let error = "does not use logins: this listener is without SASL";
    refused("SASL to a port without", error, &with_password(PLAINTEXT));
    let error = "does not offer the SASL mechanism PLAIN: it offers SCRAM-SHA-256";
    refused("mechanism not offered", error, &with_password(SCRAM_ONLY));
}

/// The library's own tests of logins, on this node.
#[test]
fn sessions_are_renewed_under_traffic() {
    let Some(bed) = bed() else { return };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut test = Command::new(cargo);
    test.current_dir(root()).args(["test", "--locked", "--quiet", "--workspace", "--test", "sasl"]);
    test.envs([
        ("AILURUS_TEST_BROKERS", bed.kafka.address(PLAINTEXT)),
        ("AILURUS_TEST_SASL", bed.kafka.address(SASL)),
        ("AILURUS_TEST_SASL_USER", format!("{USER}:{PASSWORD}")),
        ("AILURUS_TEST_SASL_LIFETIME", SESSION_MS.to_owned()),
    ]);
    let output = test.stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("test result: ok"), "no test ran: {printed}");
}
