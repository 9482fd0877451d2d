//! What is allowed, and the text that says so.

use std::time::Duration;

use super::{
    Acks, Compression, Config, ConsumerConfig, ProcessorConfig, ProducerConfig, SaslMechanism, SecurityProtocol, env,
};
use crate::error::{Error, ErrorKind, Result};

/// The most memory that may be set, in bytes: where addresses have 32 bits, less than the 512 MiB that a semaphore can count there.
const MEMORY: usize = if usize::BITS > 32 { 64 << 30 } else { 256 << 20 };

/// Notes all that is wrong with `config`.
pub(super) fn all(config: &Config, problems: &mut Vec<String>) {
    let mut check = Check(problems);
    check.client(config);
    check.security(config);
    check.sasl(config);
    check.producer(&config.producer, config.request_timeout);
    check.consumer(&config.consumer);
    check.processor(&config.processor);
}

/// One error for all problems.
pub(super) fn outcome(problems: &[String]) -> Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Config, report(problems))) }
}

impl Config {
    /// For settings that were changed after they were built.
    pub(crate) fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        all(self, &mut problems);
        outcome(&problems)
    }
}

impl ProducerConfig {
    pub(crate) fn validate(&self, request_timeout: Duration) -> Result<()> {
        validate(|c| c.producer(self, request_timeout))
    }
}

impl ConsumerConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        validate(|c| c.consumer(self))
    }
}

impl ProcessorConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        validate(|c| c.processor(self))
    }
}

fn validate(f: impl FnOnce(&mut Check<'_>)) -> Result<()> {
    let mut problems = Vec::new();
    f(&mut Check(&mut problems));
    outcome(&problems)
}

fn report(problems: &[String]) -> String {
    match problems {
        [one] => format!("invalid setting: {one}"),
        many => format!("{} invalid settings: {}", many.len(), many.join("; ")),
    }
}

/// The name of a setting as a user of the environment knows it.
fn named(setting: &str) -> String {
    match env::variable_of(setting) {
        Some(variable) => format!("{setting} ({variable})"),
        None => setting.to_owned(),
    }
}

struct Check<'a>(&'a mut Vec<String>);

impl Check<'_> {
    fn require(&mut self, ok: bool, problem: impl FnOnce() -> String) {
        if !ok {
            self.0.push(problem());
        }
    }

    fn duration(&mut self, name: &str, value: Duration, min: Duration, max: Duration) {
        self.require((min..=max).contains(&value), || {
            format!("{} is {value:?}: allowed is {min:?} to {max:?}", named(name))
        });
    }

    fn bytes(&mut self, name: &str, value: usize, min: usize, max: usize) {
        self.require((min..=max).contains(&value), || {
            format!("{} is {value} bytes: allowed is {min} to {max}", named(name))
        });
    }

    fn count(&mut self, name: &str, value: usize, max: usize) {
        self.require((1..=max).contains(&value), || format!("{} is {value}: allowed is 1 to {max}", named(name)));
    }

    fn client(&mut self, c: &Config) {
        let id_ok = |s: &str| (1..=249).contains(&s.len()) && !s.chars().any(char::is_control);
        self.require(!c.brokers.is_empty(), || format!("{} is empty: name at least one host:port", named("brokers")));
        for (name, value) in [("client id", &c.client_id), ("group id", &c.group_id)] {
            self.require(id_ok(value), || {
                format!("{} is {value:?}: allowed are 1 to 249 bytes without control characters", named(name))
            });
        }
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        self.duration("request timeout", c.request_timeout, ms(100), s(600));
        self.duration("connect timeout", c.connect_timeout, ms(10), s(120));
        self.duration("health timeout", c.health_timeout, ms(100), s(60));
        self.duration("metadata max age", c.metadata_max_age, ms(1), s(86_400));
        self.duration("metadata max idle", c.metadata_max_idle, ms(1), s(86_400));
        self.duration("topic creation timeout", c.topic_creation_timeout, ms(1), s(3600));
        self.duration("retry backoff", c.retry_backoff, ms(1), s(60));
        self.duration("retry backoff max", c.retry_backoff_max, c.retry_backoff, s(600));
    }

    fn security(&mut self, c: &Config) {
        let (protocol, tls) = (c.security_protocol, &c.tls);
        #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
        self.require(!protocol.is_tls(), || {
            format!("{} is {protocol}: {}", named("security protocol"), super::SecurityProtocol::NO_TLS)
        });
        let set = [
            ("tls ca file", tls.ca_file.is_some()),
            ("tls cert file", tls.cert_file.is_some()),
            ("tls key file", tls.key_file.is_some()),
            ("tls server name", tls.server_name.is_some()),
        ];
        // Somebody who sets these means not to talk in the clear.
        for (setting, _) in set.into_iter().filter(|(_, is_set)| *is_set && !protocol.is_tls()) {
            self.require(false, || {
                let protocol_is = format!("{} is {protocol}", named("security protocol"));
                format!("{} is set, but {protocol_is}: it needs SSL or SASL_SSL", named(setting))
            });
        }
        self.require(tls.cert_file.is_some() == tls.key_file.is_some(), || {
            let (cert, key) = (named("tls cert file"), named("tls key file"));
            format!("of {cert} and {key} one is set: a client certificate needs both")
        });
    }

    fn sasl(&mut self, c: &Config) {
        let protocol = c.security_protocol;
        let Some(sasl) = &c.sasl else {
            self.require(!protocol.is_sasl(), || {
                let mechanism = named("sasl mechanism");
                format!("{} is {protocol}, but {mechanism} is not set", named("security protocol"))
            });
            return;
        };
        let mechanism = &sasl.mechanism;
        let is = || format!("{} is {}", named("sasl mechanism"), mechanism.name());
        self.require(protocol.is_sasl(), || {
            let protocol_is = format!("{} is {protocol}", named("security protocol"));
            format!("{}, but {protocol_is}: it needs SASL_SSL or SASL_PLAINTEXT", is())
        });
        self.require(protocol != SecurityProtocol::SaslPlaintext || sasl.allow_cleartext || !sasl.is_cleartext(), || {
            let secret = if matches!(mechanism, SaslMechanism::Plain(_)) { "password" } else { "token" };
            format!(
                "{}, but {} is {protocol}: anyone on the way could read the {secret}; use SASL_SSL or a SCRAM mechanism, or allow it by {}",
                is(),
                named("security protocol"),
                named("sasl allow cleartext")
            )
        });
        match mechanism {
            SaslMechanism::Plain(who) | SaslMechanism::ScramSha256(who) | SaslMechanism::ScramSha512(who) => {
                let text = |s: &str| !s.is_empty() && !s.contains('\0');
                self.require(text(&who.username), || {
                    format!("{} is {:?}: allowed is text without NUL", named("sasl username"), who.username)
                });
                self.require(text(who.password.expose()), || {
                    format!("{} is empty or has a NUL in it: allowed is text without NUL", named("sasl password"))
                });
            }
            SaslMechanism::OAuthBearer(bearer) => {
                for (name, value) in &bearer.extensions {
                    let name_ok = name.chars().all(|c| c.is_ascii_alphabetic()) && !name.is_empty() && name != "auth";
                    let value_ok = value.chars().all(|c| c.is_ascii_graphic() || c == ' ');
                    self.require(name_ok && value_ok, || {
                        let names = "allowed are names of letters, but not auth, and printable ASCII values";
                        format!("{} has {name:?}: {names}", named("sasl extensions"))
                    });
                }
            }
        }
    }

    fn producer(&mut self, p: &ProducerConfig, request_timeout: Duration) {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        self.require(!p.idempotence || p.acks == Acks::All, || {
            format!("{} is on: it needs {} to be all", named("idempotence"), named("acks"))
        });
        self.duration("linger", p.linger, ms(0), s(60));
        self.duration("delivery timeout", p.delivery_timeout, s(1), s(3600));
        let least = p.linger.saturating_add(request_timeout);
        self.require(p.delivery_timeout >= least, || {
            format!(
                "{} is {:?}: allowed is at least linger plus request timeout, {least:?}",
                named("delivery timeout"),
                p.delivery_timeout
            )
        });
        self.bytes("batch size", p.batch_size, 1 << 10, 64 << 20);
        self.bytes("max request size", p.max_request_size, 1 << 10, 100 << 20);
        self.bytes("buffer memory", p.buffer_memory, p.batch_size.max(p.max_request_size), MEMORY);
        self.duration("partition availability timeout", p.partition_availability_timeout, ms(0), s(3600));
        if let Compression::Gzip { level } = p.compression {
            self.require((1..=9).contains(&level), || {
                format!("{} is {level}: allowed is 1 (fast) to 9 (small)", named("compression level"))
            });
        }
        for (topic, compression) in &p.topic_compression {
            if let Err(e) = compression.check() {
                self.require(false, || format!("compression of topic {topic:?}: {e}"));
            }
        }
    }

    fn consumer(&mut self, c: &ConsumerConfig) {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        self.duration("session timeout", c.session_timeout, ms(1), s(1800));
        self.duration("rebalance timeout", c.rebalance_timeout, ms(1), s(3600));
        self.duration("max poll interval", c.max_poll_interval, ms(1), s(86_400));
        self.duration("heartbeat interval", c.heartbeat_interval, ms(1), s(600));
        self.require(c.heartbeat_interval.saturating_mul(3) <= c.session_timeout, || {
            format!(
                "{} is {:?}: allowed is at most a third of the {}, which is {:?}",
                named("heartbeat interval"),
                c.heartbeat_interval,
                named("session timeout"),
                c.session_timeout
            )
        });
        self.require(c.rebalance_timeout > c.heartbeat_interval, || {
            format!(
                "{} is {:?}: allowed is more than the heartbeat interval of {:?}, by which a member learns of a rebalance",
                named("rebalance timeout"),
                c.rebalance_timeout,
                c.heartbeat_interval
            )
        });
        self.require(!c.assignors.is_empty(), || "assignors is empty: name at least one".into());
        for (i, assignor) in c.assignors.iter().enumerate() {
            let name = assignor.name();
            self.require(!c.assignors.iter().take(i).any(|a| a == assignor), || {
                format!("assignors has {name:?} twice: name each once")
            });
            self.require((1..=249).contains(&name.len()), || {
                format!("assignors has one named {name:?}: allowed are 1 to 249 bytes")
            });
        }
        let name_ok = |name: &String| (1..=249).contains(&name.len()) && !name.chars().any(char::is_control);
        for (name, value) in [
            ("group instance id", &c.group_instance_id),
            ("group remote assignor", &c.group_remote_assignor),
            ("client rack", &c.client_rack),
        ] {
            self.require(value.as_ref().is_none_or(name_ok), || {
                format!("{} is {value:?}: allowed are 1 to 249 bytes without control characters", named(name))
            });
        }
        if let Some(interval) = c.auto_commit_interval {
            self.duration("auto commit interval", interval, ms(1), s(3600));
        }
        self.duration("fetch max wait", c.fetch_max_wait, ms(0), s(30));
        self.bytes("fetch max bytes", c.fetch_max_bytes, 1 << 10, 100 << 20);
        self.bytes("fetch min bytes", c.fetch_min_bytes, 0, c.fetch_max_bytes);
        self.bytes("partition fetch bytes", c.partition_fetch_bytes, 1 << 10, 100 << 20);
        self.bytes("prefetch bytes", c.prefetch_bytes, 1 << 10, MEMORY);
        self.bytes("max decompressed bytes", c.max_decompressed_bytes, 1 << 10, 2 << 30);
    }

    fn processor(&mut self, p: &ProcessorConfig) {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        self.count("max attempts", p.max_attempts as usize, 1000);
        self.count("handler concurrency", p.concurrency, 100_000);
        self.count("parked records", p.parked_records, 10_000_000);
        self.bytes("parked bytes", p.parked_bytes, 1 << 10, MEMORY);
        if let Some(timeout) = p.attempt_timeout {
            self.duration("attempt timeout", timeout, ms(1), s(86_400));
        }
        self.duration("handler retry backoff", p.retry_backoff, ms(0), s(3600));
        self.duration("handler retry backoff max", p.retry_backoff_max, p.retry_backoff, s(86_400));
        self.duration("commit interval", p.commit_interval, ms(1), s(3600));
        self.duration("shutdown timeout", p.shutdown_timeout, ms(0), s(3600));
        self.duration("stall timeout", p.stall_timeout, ms(100), s(86_400));
        if let Some(retention) = p.dead_letter_retention {
            self.duration("dead letter retention", retention, s(60), s(100 * 365 * 86_400));
        }
        let suffix_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        self.require(!p.dead_letter_suffix.is_empty() && p.dead_letter_suffix.chars().all(suffix_ok), || {
            format!(
                "dead letter suffix is {:?}: allowed are letters, digits, '.', '-' and '_', at least one",
                p.dead_letter_suffix
            )
        });
    }
}
