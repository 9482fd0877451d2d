//! The client of the registry: options, then variables.

use ailurus::{ConfigBuilder, TokenSource};
use ailurus_schema::{SchemaError, SchemaErrorKind, SchemaRegistry};
use anyhow::anyhow;
use clap::Args;

use crate::exit::{NotFound, Refused, Usage};
use crate::options::Global;
use crate::settings;

const DEFAULT_URL: &str = "http://localhost:8081";

/// Options that choose the registry.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registry")]
pub struct Connection {
    /// URLs of one schema registry, separated by commas [default: REDPANDA_SCHEMA_REGISTRY_URL, else http://localhost:8081].
    #[arg(long, global = true, value_name = "URL,…", value_delimiter = ',')]
    registry: Vec<String>,
    /// Context of subjects and ids, such as .staging [default: REDPANDA_SCHEMA_REGISTRY_CONTEXT, else the registry's].
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
    /// Send credentials over http to another machine, where they can be read on the network.
    #[arg(long, global = true)]
    allow_cleartext: bool,
}

impl Connection {
    /// Returns a client; nothing is sent yet.
    pub fn registry(self, global: &Global) -> anyhow::Result<SchemaRegistry> {
        let settings = settings::builder(global)?;
        let tls = settings.clone().build()?.tls;
        let text = |name: &str| variable(&settings, name);
        let urls = if self.registry.is_empty() {
            let urls = text("URL").unwrap_or_else(|| DEFAULT_URL.to_owned());
            urls.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
        } else {
            self.registry
        };
        let mut builder = SchemaRegistry::builder(urls).tls(tls).allow_cleartext(self.allow_cleartext);
        builder = match (text("USERNAME"), text("PASSWORD"), text("TOKEN_FILE")) {
            (None, None, None) => builder,
            (Some(user), Some(password), None) => builder.basic_auth(user, password.as_str()),
            (None, None, Some(file)) => builder.bearer_auth(TokenSource::File(file.into())),
            _ => {
                let needed = "REDPANDA_SCHEMA_REGISTRY_USERNAME and REDPANDA_SCHEMA_REGISTRY_PASSWORD go together, and \
                              without REDPANDA_SCHEMA_REGISTRY_TOKEN_FILE";
                return Err(Usage(needed.into()).into());
            }
        };
        if let Some(context) = self.context.or_else(|| text("CONTEXT")) {
            builder = builder.context(context);
        }
        builder.build().map_err(|error| exit_error(error.into()))
    }
}

fn variable(settings: &ConfigBuilder, name: &str) -> Option<String> {
    settings.variable(&format!("REDPANDA_SCHEMA_REGISTRY_{name}")).map(|value| value.expose().to_owned())
}

/// Gives an error of the registry the exit code that says what to do about it.
pub fn exit_error(error: anyhow::Error) -> anyhow::Error {
    use SchemaErrorKind::{
        Authorization, Config, Incompatible, InvalidSchema, NotFound as Missing, Rejected, Unavailable,
    };
    let Some(kind) = error.downcast_ref::<SchemaError>().map(SchemaError::kind) else { return error };
    let text = format!("{error:#}");
    match kind {
        Config => Usage(text).into(),
        Missing => NotFound(text).into(),
        Authorization | Incompatible | InvalidSchema | Rejected => Refused(text).into(),
        Unavailable => ailurus::Error::new(ailurus::ErrorKind::Connect, text).into(),
        _ => anyhow!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, exit_of};

    #[test]
    fn what_is_to_be_done_about_an_error_shows_in_the_code() {
        let of = |kind| exit_of(&exit_error(SchemaError::new(kind, "x").into()));
        assert_eq!(of(SchemaErrorKind::Config), Exit::Usage);
        assert_eq!(of(SchemaErrorKind::NotFound), Exit::NotFound);
        assert_eq!(of(SchemaErrorKind::Unavailable), Exit::Unreachable);
        assert_eq!(of(SchemaErrorKind::Incompatible), Exit::Refused);
        assert_eq!(of(SchemaErrorKind::Protocol), Exit::Failure);
        assert_eq!(exit_of(&exit_error(anyhow!("x"))), Exit::Failure);
    }
}
