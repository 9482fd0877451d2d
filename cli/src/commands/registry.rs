//! `ailurus registry`: schemas of a schema registry.

mod connection;
mod diff;
mod print;
mod source;
mod subject;
mod transfer;

use std::path::PathBuf;

use ailurus_schema::registry::{CompatibilityLevel, Deleted, Deletion, Mode, RegisterOptions, SubjectFilter};
use ailurus_schema::{SchemaError, SchemaRegistry, Version};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::exit::{Exit, Usage};
use crate::options::{Global, Json};
use crate::output::{self, note};
use connection::{Connection, exit_error};
use source::Source;
use subject::SubjectVersion;

/// List, show, register, check, compare and delete schemas; export and import them.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Registry {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
Registries are Redpanda's, Confluent's, Apicurio's (with /apis/ccompat/v7 in the URL), and that of
`ailurus broker --registry`.

Settings, of the environment or .env:
  REDPANDA_SCHEMA_REGISTRY_URL         URLs of one registry, separated by commas
  REDPANDA_SCHEMA_REGISTRY_USERNAME    user name and password (HTTP Basic)
  REDPANDA_SCHEMA_REGISTRY_PASSWORD
  REDPANDA_SCHEMA_REGISTRY_TOKEN_FILE  or a file with a token (HTTP Bearer), read for each request
  REDPANDA_SCHEMA_REGISTRY_CONTEXT     context of the subjects, such as .staging
  REDPANDA_TLS_CA and others           certificates of https URLs: those of the brokers

Examples:
  ailurus registry subjects --long
  ailurus registry show orders-value:3 > order.avsc
  ailurus registry check orders-value --file order.avsc && ailurus registry register orders-value --file order.avsc
  ailurus registry diff orders-value:1 orders-value:3
  ailurus registry config orders-value --set FULL --yes
  ailurus registry export --out schemas.ndjson
  ailurus registry import schemas.ndjson --registry http://other:8081 --new-ids --yes";

#[derive(Debug, Subcommand)]
enum Action {
    /// List the subjects.
    Subjects {
        /// Only subjects that begin with this.
        prefix: Option<String>,
        /// Include those that are deleted softly.
        #[arg(long)]
        deleted: bool,
        /// Show the latest version of each subject, its schema id and type, too; a request for each.
        #[arg(long, conflicts_with = "deleted")]
        long: bool,
        #[command(flatten)]
        output: Json,
    },
    /// List the versions of a subject, with schema ids and types.
    Versions {
        /// Subject.
        subject: String,
        /// Include those that are deleted softly.
        #[arg(long)]
        deleted: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Print a schema; where it is in the registry goes to stderr.
    Show {
        /// Subject, and its version; without one the latest.
        #[arg(value_name = "SUBJECT[:VERSION]", required_unless_present = "id")]
        subject: Option<SubjectVersion>,
        /// Schema with this id.
        #[arg(long, value_name = "ID", conflicts_with = "subject")]
        id: Option<u32>,
        #[command(flatten)]
        output: Json,
    },
    /// Register a schema under a subject, and print its id. One that the subject has already keeps its id.
    Register {
        /// Subject.
        subject: String,
        #[command(flatten)]
        source: Source,
        /// Store the schema in a normal form, so that one which differs only in its form is the same.
        #[arg(long)]
        normalize: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Check whether a schema is compatible with a subject; nothing is registered.
    ///
    /// Exit code 1 if it is not, with the reasons.
    Check {
        /// Subject; with a version, that one alone counts, otherwise those that the subject's compatibility level names.
        #[arg(value_name = "SUBJECT[:VERSION]")]
        subject: SubjectVersion,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        output: Json,
    },
    /// Compare two schemas line by line.
    Diff {
        /// Subject, and its version; without one the latest.
        #[arg(value_name = "SUBJECT[:VERSION]")]
        from: SubjectVersion,
        /// The other; in its place, --file.
        #[arg(value_name = "SUBJECT[:VERSION]", required_unless_present = "file", conflicts_with = "file")]
        to: Option<SubjectVersion>,
        /// File with the other schema; - is stdin.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Delete a subject, or one of its versions, softly: records with its id can still be read.
    ///
    /// Dry run without --yes: prints what would be done.
    Delete {
        /// Subject; with a version, that one alone.
        #[arg(value_name = "SUBJECT[:VERSION]")]
        subject: SubjectVersion,
        /// Delete for good what is deleted softly: records with its id can't be read any more.
        #[arg(long)]
        permanent: bool,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
    },
    /// Show or change the compatibility level of a subject, or of the registry.
    ///
    /// Changes are dry runs without --yes.
    Config {
        /// Subject; without one, the registry.
        subject: Option<String>,
        /// Set the level: BACKWARD, FORWARD or FULL, each also with _TRANSITIVE, or NONE.
        #[arg(long, value_name = "LEVEL", value_parser = parsed::<CompatibilityLevel>)]
        set: Option<CompatibilityLevel>,
        /// Remove the level of the subject: the registry's applies again.
        #[arg(long, conflicts_with = "set", requires = "subject")]
        unset: bool,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Show or change the mode of a subject, or of the registry.
    ///
    /// Changes are dry runs without --yes.
    Mode {
        /// Subject; without one, the registry.
        subject: Option<String>,
        /// Set the mode: READWRITE, READONLY, or IMPORT, in which schemas are registered with the ids that they had elsewhere.
        #[arg(long, value_name = "MODE", value_parser = parsed::<Mode>)]
        set: Option<Mode>,
        /// Allow IMPORT where there are schemas already.
        #[arg(long, requires = "set")]
        force: bool,
        /// Remove the mode of the subject: the registry's applies again.
        #[arg(long, conflicts_with = "set", requires = "subject")]
        unset: bool,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Write all versions as lines of JSON, referenced schemas first.
    Export {
        /// Only subjects that begin with this, and what they refer to.
        prefix: Option<String>,
        /// File to write, which must not exist; without it, stdout.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Register what was exported, with the same ids and versions.
    ///
    /// The registry, or its subjects, must be in mode IMPORT; with --new-ids that is not needed. What is there already stays. Dry
    /// run without --yes: prints what would be done.
    Import {
        /// File that was exported; - is stdin.
        file: PathBuf,
        /// Let the registry choose ids and versions, and check compatibility.
        #[arg(long)]
        new_ids: bool,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
    },
}

fn parsed<T: std::str::FromStr<Err = SchemaError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: SchemaError| error.to_string())
}

pub async fn run(global: &Global, args: Registry) -> anyhow::Result<Exit> {
    let registry = args.connection.registry(global)?;
    act(&registry, args.action).await.map_err(exit_error)
}

async fn act(registry: &SchemaRegistry, action: Action) -> anyhow::Result<Exit> {
    match action {
        Action::Subjects { prefix, deleted, long, output } => {
            let filter = prefix.map_or_else(SubjectFilter::default, SubjectFilter::prefix);
            let subjects = registry.subjects(&filter.deleted(selection(deleted))).await?;
            if long {
                let mut latest = Vec::new();
                for subject in &subjects {
                    latest.push(registry.version(subject, Version::Latest).await?);
                }
                print::registered(latest.iter().map(AsRef::as_ref), output.json)?;
            } else {
                print::subjects(&subjects, output.json)?;
            }
        }
        Action::Versions { subject, deleted, output } => {
            let mut versions = Vec::new();
            for version in registry.versions(&subject, selection(deleted)).await? {
                versions.push(registry.version_or_deleted(&subject, version.into()).await?);
            }
            print::registered(versions.iter(), output.json)?;
        }
        Action::Show { subject, id, output } => return show(registry, subject, id, output.json).await,
        Action::Register { subject, source, normalize, output } => {
            let schema = source.read()?;
            let options = RegisterOptions::new().normalize(normalize);
            let registered = registry.register(&subject, &schema, options).await?;
            let (id, version) = (registered.id, registered.version);
            if output.json {
                output::json(&json!({"subject": subject, "id": id, "version": version}))?;
            } else {
                let version = version.map(|v| format!(" version {v}")).unwrap_or_default();
                output::print(format_args!("registered: {subject}{version} has schema id {id}\n"))?;
            }
        }
        Action::Check { subject, source, output } => {
            let schema = source.read()?;
            let result = match subject.version {
                Some(version) => registry.check(&subject.subject, version, &schema).await?,
                None => registry.check_all(&subject.subject, &schema).await?,
            };
            if output.json {
                output::json(&result)?;
            } else if result.is_compatible {
                output::print(format_args!("compatible with {subject}\n"))?;
            } else {
                output::print(format_args!("not compatible with {subject}\n"))?;
                result.messages.iter().try_for_each(|m| output::print(format_args!("  {m}\n")))?;
            }
            return Ok(if result.is_compatible { Exit::Success } else { Exit::Failure });
        }
        Action::Diff { from, to, file } => return compare(registry, from, to, file).await,
        Action::Delete { subject, permanent, yes } => delete(registry, &subject, permanent, yes).await?,
        Action::Config { subject, set, unset, yes, output } => {
            let of = subject.as_deref();
            let change = set.map(|level| format!("the level becomes {level}"));
            if let Some(change) = change.or_else(|| unset.then(|| "the level is removed".to_owned())) {
                let level = registry.compatibility_level(of).await?;
                if !is_confirmed(of, level.name(), &change, yes)? {
                    return Ok(Exit::Success);
                }
                match (set, of) {
                    (Some(level), of) => registry.set_compatibility_level(of, level).await?,
                    (None, Some(subject)) => registry.delete_compatibility_level(subject).await?,
                    (None, None) => {}
                }
            }
            let level = registry.compatibility_level(of).await?;
            print::setting(of, "compatibility", level.name(), output.json)?;
        }
        Action::Mode { subject, set, force, unset, yes, output } => {
            let of = subject.as_deref();
            let change = set.map(|mode| format!("the mode becomes {mode}"));
            if let Some(change) = change.or_else(|| unset.then(|| "the mode is removed".to_owned())) {
                let mode = registry.mode(of).await?;
                if !is_confirmed(of, mode.name(), &change, yes)? {
                    return Ok(Exit::Success);
                }
                match (set, of) {
                    (Some(mode), of) => registry.set_mode(of, mode, force).await?,
                    (None, Some(subject)) => registry.delete_mode(subject).await?,
                    (None, None) => {}
                }
            }
            let mode = registry.mode(of).await?;
            print::setting(of, "mode", mode.name(), output.json)?;
        }
        Action::Export { prefix, out } => transfer::export(registry, prefix, out.as_deref()).await?,
        Action::Import { file, new_ids, yes } => return transfer::import(registry, &file, new_ids, yes).await,
    }
    Ok(Exit::Success)
}

fn selection(deleted: bool) -> Deleted {
    if deleted { Deleted::Include } else { Deleted::Exclude }
}

/// Prints a change; returns whether it is to be made.
fn is_confirmed(subject: Option<&str>, now: &str, change: &str, yes: bool) -> anyhow::Result<bool> {
    if !yes {
        let of = subject.unwrap_or("the registry");
        output::print(format_args!("{of} has {now}: {change}\n"))?;
        note(format_args!("nothing was changed; --yes does it"));
    }
    Ok(yes)
}

async fn show(
    registry: &SchemaRegistry,
    subject: Option<SubjectVersion>,
    id: Option<u32>,
    is_json: bool,
) -> anyhow::Result<Exit> {
    match (subject, id) {
        (Some(subject), _) => {
            let found = registry.version_or_deleted(&subject.subject, subject.version.unwrap_or_default()).await?;
            if is_json {
                output::json(&found)?;
            } else {
                let (name, version, id) = (&found.subject, found.version, found.id);
                note(format_args!("{name} version {version}: schema id {id}, {}", print::described(&found.schema)));
                output::print(print::text(&found.schema))?;
            }
        }
        (None, Some(id)) => {
            let schema = registry.schema_by_id(id).await?;
            if is_json {
                output::json(&schema)?;
            } else {
                note(format_args!("schema id {id}: {}", print::described(&schema)));
                output::print(print::text(&schema))?;
            }
        }
        (None, None) => return Err(Usage("name a subject, or --id".into()).into()),
    }
    Ok(Exit::Success)
}

async fn compare(
    registry: &SchemaRegistry,
    from: SubjectVersion,
    to: Option<SubjectVersion>,
    file: Option<PathBuf>,
) -> anyhow::Result<Exit> {
    let fetch = async |of: SubjectVersion| -> anyhow::Result<_> {
        let found = registry.version_or_deleted(&of.subject, of.version.unwrap_or_default()).await?;
        Ok((format!("{}:{}", found.subject, found.version), found.schema))
    };
    let (old_name, old) = fetch(from).await?;
    let (new_name, new) = match (to, file) {
        (Some(to), _) => fetch(to).await?,
        (None, Some(file)) => {
            let schema = Source::of_type(file.clone(), old.schema_type).read()?;
            (file.display().to_string(), schema)
        }
        (None, None) => return Err(Usage("name another schema, or --file".into()).into()),
    };
    let (old_text, new_text) = (print::text(&old), print::text(&new));
    if old_text == new_text && old.references == new.references {
        note(format_args!("no difference"));
        return Ok(Exit::Success);
    }
    output::print(format_args!("--- {old_name}\n+++ {new_name}\n"))?;
    output::print(diff::lines(&old_text, &new_text))?;
    if old.references != new.references {
        output::print(format_args!("-{}\n+{}\n", print::described(&old), print::described(&new)))?;
    }
    Ok(Exit::Success)
}

async fn delete(registry: &SchemaRegistry, subject: &SubjectVersion, permanent: bool, yes: bool) -> anyhow::Result<()> {
    let (name, deletion) = (subject.subject.as_str(), if permanent { Deletion::Hard } else { Deletion::Soft });
    let how = if permanent { "for good" } else { "softly" };
    if !yes {
        let versions = match subject.version {
            Some(version) => vec![registry.version_or_deleted(name, version).await?.version],
            None => registry.versions(name, selection(permanent)).await?,
        };
        output::print(format_args!("{name}: would delete {how} version {}\n", output::list(&versions)))?;
        note(format_args!("nothing was deleted; --yes does it"));
        return Ok(());
    }
    let versions = match subject.version {
        Some(version) => vec![registry.delete_version(name, version, deletion).await?],
        None => registry.delete_subject(name, deletion).await?,
    };
    output::print(format_args!("{name}: deleted {how} version {}\n", output::list(&versions)))?;
    Ok(())
}
