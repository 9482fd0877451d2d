//! Validation of settings, and its error texts.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{
    Acks, Compression, Config, ConsumerConfig, ProcessorConfig, ProducerConfig, SaslMechanism, SecurityProtocol, env,
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

/// Returns the name of a setting with its variable.
fn display_name(setting: &str) -> String {
    let variable = env::rows().find(|row| row.setter == setting).map_or("", |row| row.variable);
    format!("{} ({variable})", setting.replace('_', " "))
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
        setting: &str,
        value: impl Into<Option<T>>,
        bounds: RangeInclusive<T>,
        unit: &str,
    ) {
        if let Some(value) = value.into().filter(|value| !bounds.contains(value)) {
            let (least, most) = bounds.into_inner();
            self.0.push(format!("{} is {value:?}{unit}: allowed is {least:?} to {most:?}", display_name(setting)));
        }
    }

    fn name(&mut self, setting: &str, value: &str) {
        self.require((1..=249).contains(&value.len()) && !value.chars().any(char::is_control), || {
            format!("{} is {value:?}: allowed are 1 to 249 bytes without control characters", display_name(setting))
        });
    }

    fn client(&mut self, c: &Config) {
        c.check_bounds(self);
        self.require(!c.brokers.is_empty(), || {
            format!("{} is empty: name at least one host:port", display_name("brokers"))
        });
        self.name("client_id", &c.client_id);
        self.name("group_id", &c.group_id);
    }

    fn security(&mut self, c: &Config) {
        let (protocol, tls) = (c.security_protocol, &c.tls);
        tls.check_bounds(self);
        #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
        self.require(!protocol.is_tls(), || {
            format!("{} is {protocol}: {}", display_name("security_protocol"), super::SecurityProtocol::NO_TLS)
        });
        let set = [
            ("tls_ca_file", tls.ca_file.is_some()),
            ("tls_cert_file", tls.cert_file.is_some()),
            ("tls_key_file", tls.key_file.is_some()),
            ("tls_server_name", tls.server_name.is_some()),
        ];
        // These settings imply encrypted connections.
        for (setting, _) in set.into_iter().filter(|(_, is_set)| *is_set && !protocol.is_tls()) {
            self.require(false, || {
                let protocol_is = format!("{} is {protocol}", display_name("security_protocol"));
                format!("{} is set, but {protocol_is}: it needs SSL or SASL_SSL", display_name(setting))
            });
        }
        self.require(tls.cert_file.is_some() == tls.key_file.is_some(), || {
            let (cert, key) = (display_name("tls_cert_file"), display_name("tls_key_file"));
            format!("of {cert} and {key} one is set: a client certificate needs both")
        });
    }

    fn sasl(&mut self, c: &Config) {
        let protocol = c.security_protocol;
        let Some(sasl) = &c.sasl else {
            self.require(!protocol.is_sasl(), || {
                let mechanism = display_name("sasl_mechanism");
                format!("{} is {protocol}, but {mechanism} is not set", display_name("security_protocol"))
            });
            return;
        };
        let mechanism = &sasl.mechanism;
        let is = || format!("{} is {}", display_name("sasl_mechanism"), mechanism.name());
        self.require(protocol.is_sasl(), || {
            let protocol_is = format!("{} is {protocol}", display_name("security_protocol"));
            format!("{}, but {protocol_is}: it needs SASL_SSL or SASL_PLAINTEXT", is())
        });
        self.require(protocol != SecurityProtocol::SaslPlaintext || sasl.allow_cleartext || !sasl.is_cleartext(), || {
            let secret = if matches!(mechanism, SaslMechanism::Plain(_)) { "password" } else { "token" };
            format!(
                "{}, but {} is {protocol}: anyone on the way could read the {secret}; use SASL_SSL or a SCRAM mechanism, or allow it by {}",
                is(),
                display_name("security_protocol"),
                display_name("sasl_allow_cleartext")
            )
        });
        match mechanism {
            SaslMechanism::Plain(who) | SaslMechanism::ScramSha256(who) | SaslMechanism::ScramSha512(who) => {
                let text = |s: &str| !s.is_empty() && !s.contains('\0');
                self.require(text(&who.username), || {
                    format!("{} is {:?}: allowed is text without NUL", display_name("sasl_username"), who.username)
                });
                self.require(text(who.password.expose()), || {
                    format!(
                        "{} is empty or has a NUL in it: allowed is text without NUL",
                        display_name("sasl_password")
                    )
                });
            }
            SaslMechanism::OAuthBearer(bearer) => {
                for (name, value) in &bearer.extensions {
                    let name_ok = name.chars().all(|c| c.is_ascii_alphabetic()) && !name.is_empty() && name != "auth";
                    let value_ok = value.chars().all(|c| c.is_ascii_graphic() || c == ' ');
                    self.require(name_ok && value_ok, || {
                        let names = "allowed are names of letters, but not auth, and printable ASCII values";
                        format!("{} has {name:?}: {names}", display_name("sasl_extensions"))
                    });
                }
            }
        }
    }

    fn producer(&mut self, p: &ProducerConfig, request_timeout: Duration) {
        p.check_bounds(self);
        self.require(!p.idempotence || p.acks == Acks::All, || {
            format!("{} is on: it needs {} to be all", display_name("idempotence"), display_name("acks"))
        });
        let least = p.linger.saturating_add(request_timeout);
        self.require(p.delivery_timeout >= least, || {
            format!(
                "{} is {:?}: allowed is at least linger plus request timeout, {least:?}",
                display_name("delivery_timeout"),
                p.delivery_timeout
            )
        });
        if let Compression::Gzip { level } = p.compression {
            self.require((1..=9).contains(&level), || {
                format!("{} is {level}: allowed is 1 (fast) to 9 (small)", display_name("compression_level"))
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
                "{} is {:?}: allowed is at most a third of the {}, which is {:?}",
                display_name("heartbeat_interval"),
                c.heartbeat_interval,
                display_name("session_timeout"),
                c.session_timeout
            )
        });
        self.require(c.rebalance_timeout > c.heartbeat_interval, || {
            format!(
                "{} is {:?}: allowed is more than the heartbeat interval of {:?}, by which a member learns of a rebalance",
                display_name("rebalance_timeout"),
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
        for (setting, value) in [
            ("group_instance_id", &c.group_instance_id),
            ("group_remote_assignor", &c.group_remote_assignor),
            ("client_rack", &c.client_rack),
        ] {
            value.iter().for_each(|value| self.name(setting, value));
        }
    }

    fn processor(&mut self, p: &ProcessorConfig) {
        p.check_bounds(self);
        let suffix_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        self.require(!p.dead_letter_suffix.is_empty() && p.dead_letter_suffix.chars().all(suffix_ok), || {
            format!(
                "dead letter suffix is {:?}: allowed are letters, digits, '.', '-' and '_', at least one",
                p.dead_letter_suffix
            )
        });
    }
}
