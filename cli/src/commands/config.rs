//! `ailurus config`: settings of topics and brokers.

use ailurus::Admin;
use ailurus::admin::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
use clap::{ArgGroup, Args, Subcommand};

use crate::exit::Exit;
use crate::options::{Global, Json, pair};
use crate::output::{self, Table, note, or_dash};
use crate::settings;

/// Describe and change the settings of topics and brokers.
#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Describe the settings that are not at their defaults, with values and sources; with --all every setting.
    #[command(after_help = "\
Examples:
  ailurus config describe --topic orders
  ailurus config describe --broker 1 --all --json | jq -r '.[] | select(.readOnly | not) | .name'
  ailurus config describe --broker-defaults")]
    Describe {
        #[command(flatten)]
        of: Of,
        /// Include settings at their defaults.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Change single settings, all of them or none.
    ///
    /// Dry run without --yes: the brokers check the changes, which are printed.
    #[command(
        group(ArgGroup::new("change").required(true).multiple(true).args(["set", "delete", "append", "subtract"])),
        after_help = "\
Times are in milliseconds and sizes in bytes where a setting's name ends in .ms or .bytes.

Examples:
  ailurus config alter --topic orders --set retention.ms=86400000     # dry run
  ailurus config alter --topic orders --set retention.ms=86400000 --set max.message.bytes=2000000 --yes
  ailurus config alter --topic orders --append cleanup.policy=compact --yes
  ailurus config alter --topic orders --delete retention.ms --yes    # its default again
  ailurus config alter --broker-defaults --set log.retention.ms=604800000 --yes"
    )]
    Alter {
        #[command(flatten)]
        of: Of,
        /// Set a value.
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        set: Vec<(String, String)>,
        /// Reset to the default.
        #[arg(long, value_name = "NAME")]
        delete: Vec<String>,
        /// Add items, separated by commas, to a setting that is a list.
        #[arg(long, value_name = "NAME=ITEMS", value_parser = pair)]
        append: Vec<(String, String)>,
        /// Remove items, separated by commas, from a setting that is a list.
        #[arg(long, value_name = "NAME=ITEMS", value_parser = pair)]
        subtract: Vec<(String, String)>,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
        /// Dry run, the default.
        #[arg(long, conflicts_with = "yes", hide = true)]
        validate_only: bool,
    },
}

/// The resource whose settings are meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Of {
    /// Settings of a topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Settings of a broker.
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    /// Settings of all brokers; of Redpanda, of the cluster.
    #[arg(long)]
    broker_defaults: bool,
}

impl Of {
    fn resource(self) -> ConfigResource {
        match (self.topic, self.broker) {
            (Some(topic), _) => ConfigResource::Topic(topic),
            (_, Some(id)) => ConfigResource::Broker(id),
            _ => ConfigResource::BrokerDefaults,
        }
    }
}

pub async fn run(global: &Global, args: Config) -> anyhow::Result<Exit> {
    settings::admin(global, async |admin| act(admin, args.action).await).await?;
    Ok(Exit::Success)
}

async fn act(admin: &Admin, action: Action) -> anyhow::Result<()> {
    match action {
        Action::Describe { of, all, output } => {
            let mut found = admin.describe_configs(&of.resource()).await?;
            found.retain(|c| all || c.source != ConfigSource::Default);
            if output.json {
                output::json(&found)?;
            } else {
                output::print(table(&found))?;
            }
        }
        Action::Alter { of, set, delete, append, subtract, yes, validate_only: _ } => {
            let of = of.resource();
            let mut changes: Vec<_> = set.iter().map(|(n, v)| ConfigChange::set(n, v)).collect();
            changes.extend(delete.iter().map(ConfigChange::delete));
            changes.extend(append.iter().map(|(n, v)| ConfigChange::append(n, v)));
            changes.extend(subtract.iter().map(|(n, v)| ConfigChange::subtract(n, v)));
            if yes {
                admin.alter_configs(&of, &changes).await?;
                let names = output::names(changes.iter().map(ConfigChange::name));
                output::print(format_args!("changed {names} of {of}\n"))?;
                return Ok(());
            }
            admin.check_configs(&of, &changes).await?;
            let now = admin.describe_configs(&of).await?;
            let mut plan = Table::new(["NAME", "NOW", "CHANGE"]);
            let mut add = |name: &str, change: String| {
                let now = now.iter().find(|c| c.name == name);
                let value = now.map_or_else(|| "-".to_owned(), shown);
                plan.row([name.to_owned(), value, change]);
            };
            set.iter().for_each(|(n, v)| add(n, format!("set to {v}")));
            delete.iter().for_each(|n| add(n, "reset to its default".to_owned()));
            append.iter().for_each(|(n, v)| add(n, format!("add {v}")));
            subtract.iter().for_each(|(n, v)| add(n, format!("remove {v}")));
            output::print(plan)?;
            note(format_args!("nothing of {of} was changed; --yes does it"));
        }
    }
    Ok(())
}

fn shown(c: &ConfigEntry) -> String {
    if c.sensitive { "(secret)".to_owned() } else { or_dash(c.value.as_deref()) }
}

fn table(entries: &[ConfigEntry]) -> Table {
    let mut table = Table::new(["NAME", "VALUE", "FROM"]);
    for c in entries {
        let from = match c.source {
            ConfigSource::Topic => "topic",
            ConfigSource::Broker => "broker",
            ConfigSource::BrokerDefaults => "all brokers",
            ConfigSource::File => "file",
            ConfigSource::Default => "default",
            _ => "-",
        };
        let from = if c.read_only { format!("{from}, read-only") } else { from.to_owned() };
        table.row([c.name.clone(), shown(c), from]);
    }
    table
}
