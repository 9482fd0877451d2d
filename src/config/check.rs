//! Validation of settings, and its error texts.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{
    Acks, Compression, Config, ConsumerConfig, ProcessorConfig, ProducerConfig, SaslMechanism, SecurityProtocol,
};
use crate::error::{Error, ErrorKind, Result};

/// Adds all problems of `config`.
pub(super) fn check_all(config: &Config, problems: &mut Vec<String>) {
    let mut check = Check(problems);
    check.client(config);
    check.security(config);
    check.sasl(config);
    check.producer(&config.producer, config.request_timeout);
    check.consumer(&config.consumer);
    check.processor(&config.processor);
}

/// Returns one error for all problems.
pub(super) fn into_result(problems: &[String]) -> Result<()> {
    if problems.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Config, report(problems))) }
}

impl Config {
    /// Validates settings that may have been changed after they were built.
    pub(crate) fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        check_all(self, &mut problems);
        into_result(&problems)
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
    into_result(&problems)
}

fn report(problems: &[String]) -> String {
    match problems {
        [one] => format!("invalid setting: {one}"),
        many => format!("{} invalid settings: {}", many.len(), many.join("; ")),
    }
}

pub(super) struct Check<'a>(&'a mut Vec<String>);

impl Check<'_> {
    fn require(&mut self, ok: bool, problem: impl FnOnce() -> String) {
        if !ok {
            self.0.push(problem());
        }
    }

    /// Reports a value out of its bounds, unless it is unset.
    pub(super) fn bounds<T: PartialOrd + Debug>(
        &mut self,
        path: &str,
        value: impl Into<Option<T>>,
        bounds: RangeInclusive<T>,
        unit: &str,
    ) {
        if let Some(value) = value.into().filter(|value| !bounds.contains(value)) {
            let (least, most) = bounds.into_inner();
            self.0.push(format!("{path} is {value:?}{unit}: allowed is {least:?} to {most:?}"));
        }
    }

    fn name(&mut self, path: &str, value: &str) {
        self.require((1..=249).contains(&value.len()) && !value.chars().any(char::is_control), || {
            format!("{path} is {value:?}: allowed are 1 to 249 bytes without control characters")
        });
    }

    fn client(&mut self, c: &Config) {
        c.check_bounds(self);
        self.require(!c.brokers.is_empty(), || "Config::brokers is empty: name at least one host:port".into());
        self.name("Config::client_id", &c.client_id);
        self.name("Config::group_id", &c.group_id);
    }

    fn security(&mut self, c: &Config) {
        let (protocol, tls) = (c.security_protocol, &c.tls);
        tls.check_bounds(self);
        #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
        self.require(!protocol.is_tls(), || {
            format!("Config::security_protocol is {protocol}: {}", SecurityProtocol::NO_TLS)
        });
        let set = [
            ("TlsConfig::ca_file", tls.ca_file.is_some()),
            ("TlsConfig::cert_file", tls.cert_file.is_some()),
            ("TlsConfig::key_file", tls.key_file.is_some()),
            ("TlsConfig::server_name", tls.server_name.is_some()),
        ];
        // These settings imply encrypted connections.
        for (path, _) in set.into_iter().filter(|(_, is_set)| *is_set && !protocol.is_tls()) {
            let needs = "it needs SSL or SASL_SSL";
            self.0.push(format!("{path} is set, but Config::security_protocol is {protocol}: {needs}"));
        }
        self.require(tls.cert_file.is_some() == tls.key_file.is_some(), || {
            "of TlsConfig::cert_file and TlsConfig::key_file one is set: a client certificate needs both".into()
        });
    }

    fn sasl(&mut self, c: &Config) {
        let protocol = c.security_protocol;
        let Some(sasl) = &c.sasl else {
            self.require(!protocol.is_sasl(), || {
                format!("Config::security_protocol is {protocol}, but SaslConfig::mechanism is not set")
            });
            return;
        };
        let mechanism = &sasl.mechanism;
        let is = || format!("SaslConfig::mechanism is {}", mechanism.name());
        self.require(protocol.is_sasl(), || {
            format!("{}, but Config::security_protocol is {protocol}: it needs SASL_SSL or SASL_PLAINTEXT", is())
        });
        self.require(protocol != SecurityProtocol::SaslPlaintext || sasl.allow_cleartext || !sasl.is_cleartext(), || {
            let secret = if matches!(mechanism, SaslMechanism::Plain(_)) { "password" } else { "token" };
            format!(
                "{}, but Config::security_protocol is {protocol}: anyone on the way could read the {secret}; use SASL_SSL or a \
                 SCRAM mechanism, or allow it by SaslConfig::allow_cleartext",
                is()
            )
        });
        match mechanism {
            SaslMechanism::Plain(who) | SaslMechanism::ScramSha256(who) | SaslMechanism::ScramSha512(who) => {
                let text = |s: &str| !s.is_empty() && !s.contains('\0');
                self.require(text(&who.username), || {
                    format!("Credentials::username is {:?}: allowed is text without NUL", who.username)
                });
                self.require(text(who.password.expose()), || {
                    "Credentials::password is empty or has a NUL in it: allowed is text without NUL".into()
                });
            }
            SaslMechanism::OAuthBearer(bearer) => {
                for (name, value) in &bearer.extensions {
                    let name_ok = name.chars().all(|c| c.is_ascii_alphabetic()) && !name.is_empty() && name != "auth";
                    let value_ok = value.chars().all(|c| c.is_ascii_graphic() || c == ' ');
                    self.require(name_ok && value_ok, || {
                        let names = "allowed are names of letters, but not auth, and printable ASCII values";
                        format!("OAuthBearer::extensions has {name:?}: {names}")
                    });
                }
            }
        }
    }

    fn producer(&mut self, p: &ProducerConfig, request_timeout: Duration) {
        p.check_bounds(self);
        self.require(!p.idempotence || p.acks == Acks::All, || {
            "ProducerConfig::idempotence is on: it needs ProducerConfig::acks to be all".into()
        });
        let least = p.linger.saturating_add(request_timeout);
        self.require(p.delivery_timeout >= least, || {
            format!(
                "ProducerConfig::delivery_timeout is {:?}: allowed is at least linger plus request timeout, {least:?}",
                p.delivery_timeout
            )
        });
        if let Compression::Gzip { level } = p.compression {
            self.require((1..=9).contains(&level), || {
                format!("the level of Compression::Gzip is {level}: allowed is 1 (fast) to 9 (small)")
            });
        }
        for (topic, compression) in &p.topic_compression {
            if let Err(e) = compression.check() {
                self.require(false, || format!("compression of topic {topic:?}: {e}"));
            }
        }
    }

    fn consumer(&mut self, c: &ConsumerConfig) {
        c.check_bounds(self);
        self.require(c.heartbeat_interval.saturating_mul(3) <= c.session_timeout, || {
            format!(
                "ConsumerConfig::heartbeat_interval is {:?}: allowed is at most a third of ConsumerConfig::session_timeout, \
                 which is {:?}",
                c.heartbeat_interval, c.session_timeout
            )
        });
        self.require(c.rebalance_timeout > c.heartbeat_interval, || {
            format!(
                "ConsumerConfig::rebalance_timeout is {:?}: allowed is more than the heartbeat interval of {:?}, by which a \
                 member learns of a rebalance",
                c.rebalance_timeout, c.heartbeat_interval
            )
        });
        self.require(!c.assignors.is_empty(), || "ConsumerConfig::assignors is empty: name at least one".into());
        for (i, assignor) in c.assignors.iter().enumerate() {
            let name = assignor.name();
            self.require(!c.assignors.iter().take(i).any(|a| a == assignor), || {
                format!("ConsumerConfig::assignors has {name:?} twice: name each once")
            });
            self.require((1..=249).contains(&name.len()), || {
                format!("ConsumerConfig::assignors has one named {name:?}: allowed are 1 to 249 bytes")
            });
        }
        for (path, value) in [
            ("ConsumerConfig::group_instance_id", &c.group_instance_id),
            ("ConsumerConfig::group_remote_assignor", &c.group_remote_assignor),
            ("ConsumerConfig::client_rack", &c.client_rack),
        ] {
            value.iter().for_each(|value| self.name(path, value));
        }
    }

    fn processor(&mut self, p: &ProcessorConfig) {
        p.check_bounds(self);
        let (delays, allowed) = (&p.delayed_retries, Duration::from_millis(1)..=Duration::from_secs(30 * 86_400));
        let are_allowed = delays.iter().all(|d| allowed.contains(d) && d.subsec_nanos() % 1_000_000 == 0);
        let is_ascending = delays.iter().zip(delays.iter().skip(1)).all(|(a, b)| a < b);
        self.require(delays.len() <= 10 && are_allowed && is_ascending, || {
            format!(
                "ProcessorConfig::delayed_retries is {delays:?}: allowed are up to 10 delays, ascending, of 1 ms to 30 days, in whole milliseconds"
            )
        });
        let suffix_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        self.require(!p.dead_letter_suffix.is_empty() && p.dead_letter_suffix.chars().all(suffix_ok), || {
            format!(
                "ProcessorConfig::dead_letter_suffix is {:?}: allowed are letters, digits, '.', '-' and '_', at least one",
                p.dead_letter_suffix
            )
        });
    }
}
