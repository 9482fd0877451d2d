//! The `REDPANDA_SASL_*` variables, which depend on each other.

use std::path::PathBuf;

use super::Vars;
use crate::config::parse::{boolean, name};
use crate::config::table::{Row, row};
use crate::config::{ClientCredentials, Credentials, OAuthBearer, SaslConfig, SaslMechanism, Secret, TokenSource};

const MECHANISM: &str = "REDPANDA_SASL_MECHANISM";
const USERNAME: &str = "REDPANDA_SASL_USERNAME";
const PASSWORD: &str = "REDPANDA_SASL_PASSWORD";
const ALLOW_CLEARTEXT: &str = "REDPANDA_SASL_ALLOW_CLEARTEXT";
const TOKEN_FILE: &str = "REDPANDA_SASL_OAUTH_TOKEN_FILE";
const TOKEN_ENDPOINT: &str = "REDPANDA_SASL_OAUTH_TOKEN_ENDPOINT";
const CLIENT_ID: &str = "REDPANDA_SASL_OAUTH_CLIENT_ID";
const CLIENT_SECRET: &str = "REDPANDA_SASL_OAUTH_CLIENT_SECRET";
const SCOPE: &str = "REDPANDA_SASL_OAUTH_SCOPE";
const CA_FILE: &str = "REDPANDA_SASL_OAUTH_CA_FILE";
const EXTENSIONS: &str = "REDPANDA_SASL_OAUTH_EXTENSIONS";
/// Variables of `OAUTHBEARER`, and of the other mechanisms.
const TOKEN_VARIABLES: [&str; 7] = [TOKEN_FILE, TOKEN_ENDPOINT, CLIENT_ID, CLIENT_SECRET, SCOPE, CA_FILE, EXTENSIONS];
const PASSWORD_VARIABLES: [&str; 2] = [USERNAME, PASSWORD];

pub(in crate::config) const ROWS: &[Row] = &[
    row!("SaslConfig::mechanism", "sasl_mechanism", MECHANISM, "SASL mechanism; none: no login.", "None", "text", ""),
    row!("Credentials::username", "sasl_username", USERNAME, "User of `PLAIN` and `SCRAM`.", "None", "text", ""),
    row!("Credentials::password", "sasl_password", PASSWORD, "Password of `PLAIN` and `SCRAM`.", "None", "text", ""),
    row!(
        "SaslConfig::allow_cleartext",
        "sasl_allow_cleartext",
        ALLOW_CLEARTEXT,
        "Allows passwords (`PLAIN`) and tokens over connections without TLS.",
        "false",
        "boolean",
        ""
    ),
    row!(
        "TokenSource::File",
        "sasl_oauth_token_file",
        TOKEN_FILE,
        "File with the token of `OAUTHBEARER`, read at each login.",
        "None",
        "text",
        ""
    ),
    row!(
        "ClientCredentials::token_endpoint",
        "sasl_oauth_token_endpoint",
        TOKEN_ENDPOINT,
        "Endpoint (https, or http on loopback) where the command `ailurus` gets tokens of `OAUTHBEARER` by client credentials (OAuth 2.0).",
        "None",
        "text",
        ""
    ),
    row!(
        "ClientCredentials::client_id",
        "sasl_oauth_client_id",
        CLIENT_ID,
        "Client id at the token endpoint.",
        "None",
        "text",
        ""
    ),
    row!(
        "ClientCredentials::client_secret",
        "sasl_oauth_client_secret",
        CLIENT_SECRET,
        "Client's secret at the token endpoint.",
        "None",
        "text",
        ""
    ),
    row!("ClientCredentials::scope", "sasl_oauth_scope", SCOPE, "Scope of the requested tokens.", "None", "text", ""),
    row!(
        "ClientCredentials::ca_file",
        "sasl_oauth_ca_file",
        CA_FILE,
        "Trusted CA certificates for the token endpoint, a PEM file; none: the system's.",
        "None",
        "text",
        ""
    ),
    row!(
        "OAuthBearer::extensions",
        "sasl_oauth_extensions",
        EXTENSIONS,
        "SASL extensions sent with the token, name=value, separated by commas.",
        "None",
        "text",
        ""
    ),
];

/// Sets the login if a mechanism is set; reports missing variables, and those without effect.
pub(super) fn read(vars: &mut Vars<'_>, sasl: &mut Option<SaslConfig>, endpoint: &mut Option<ClientCredentials>) {
    let mut mechanism = None;
    vars.set(MECHANISM, name, &mut mechanism);
    let mut allow_cleartext = false;
    vars.set(ALLOW_CLEARTEXT, boolean, &mut allow_cleartext);
    let Some(mechanism) = mechanism else {
        for variable in PASSWORD_VARIABLES.into_iter().chain(TOKEN_VARIABLES) {
            vars.reject_unused(variable, "it needs REDPANDA_SASL_MECHANISM");
        }
        return;
    };
    let mechanism = match mechanism.to_ascii_uppercase().as_str() {
        "PLAIN" => vars.credentials().map(SaslMechanism::Plain),
        "SCRAM-SHA-256" => vars.credentials().map(SaslMechanism::ScramSha256),
        "SCRAM-SHA-512" => vars.credentials().map(SaslMechanism::ScramSha512),
        "OAUTHBEARER" => vars.bearer(endpoint).map(SaslMechanism::OAuthBearer),
        _ => {
            let allowed = "allowed is PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";
            vars.problems.push(format!("{MECHANISM} is {mechanism:?}: {allowed}"));
            None
        }
    };
    if let Some(mechanism) = mechanism {
        *sasl = Some(SaslConfig::new(mechanism).allow_cleartext(allow_cleartext));
    }
}

impl Vars<'_> {
    fn credentials(&mut self) -> Option<Credentials> {
        for variable in TOKEN_VARIABLES {
            self.reject_unused(variable, "it needs REDPANDA_SASL_MECHANISM to be OAUTHBEARER");
        }
        let username = self.require(USERNAME, "the mechanism needs a user and a password");
        let password = self.require(PASSWORD, "the mechanism needs a user and a password");
        Some(Credentials::new(username?, password?))
    }

    fn bearer(&mut self, endpoint: &mut Option<ClientCredentials>) -> Option<OAuthBearer> {
        for variable in PASSWORD_VARIABLES {
            self.reject_unused(variable, "OAUTHBEARER has tokens in place of passwords");
        }
        let mut extensions = Vec::new();
        self.set(EXTENSIONS, pairs, &mut extensions);
        let tokens = self.tokens(endpoint)?;
        Some(OAuthBearer { tokens, extensions })
    }

    fn tokens(&mut self, client: &mut Option<ClientCredentials>) -> Option<TokenSource> {
        let file = self.get(TOKEN_FILE);
        let Some(endpoint) = self.get(TOKEN_ENDPOINT) else {
            for variable in [CLIENT_ID, CLIENT_SECRET, SCOPE, CA_FILE] {
                self.reject_unused(variable, "it needs REDPANDA_SASL_OAUTH_TOKEN_ENDPOINT");
            }
            if file.is_none() {
                let what = format!("OAUTHBEARER needs tokens: {TOKEN_FILE}, or {TOKEN_ENDPOINT} with a client");
                self.problems.push(format!("{TOKEN_FILE} is not set: {what}"));
            }
            return file.map(|f| TokenSource::File(PathBuf::from(f)));
        };
        if file.is_some() {
            self.problems.push(format!("{TOKEN_FILE} and {TOKEN_ENDPOINT} are set: tokens come from one of them"));
        }
        let id = self.require(CLIENT_ID, "a token endpoint requires it");
        let secret = self.require(CLIENT_SECRET, "a token endpoint requires it");
        let client = client.insert(ClientCredentials::new(endpoint, id?, Secret::from(secret?)));
        client.scope = self.get(SCOPE);
        client.ca_file = self.get(CA_FILE).map(PathBuf::from);
        Some(TokenSource::provider(|| async { Err("the token endpoint has no provider".into()) }))
    }

    /// Returns the value untrimmed: a password may end in a space.
    fn get(&self, variable: &str) -> Option<String> {
        (self.read)(variable)
    }

    fn require(&mut self, variable: &str, why: &str) -> Option<String> {
        let value = self.get(variable);
        if value.is_none() {
            self.problems.push(format!("{variable} is not set: {why}"));
        }
        value
    }

    /// Reports a variable without effect. Its value may be a secret.
    fn reject_unused(&mut self, variable: &str, why: &str) {
        if self.get(variable).is_some() {
            self.problems.push(format!("{variable} is set, but {why}"));
        }
    }
}

/// Parses `name=value`, separated by commas.
fn pairs(s: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |p: &str| p.split_once('=').map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()));
    let pairs: Option<_> = s.split(',').filter(|p| !p.trim().is_empty()).map(pair).collect();
    pairs.ok_or_else(|| "allowed is name=value, separated by commas".into())
}
