//! The command line.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::options::Global;

/// Produce, consume, inspect, serve and measure Redpanda and Apache Kafka.
#[derive(Debug, Parser)]
#[command(name = "ailurus", version, max_term_width = 100, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Settings:
  Every REDPANDA_* variable of the environment, and of the file .env in the working directory,
  counts: REDPANDA_CLIENT_ID, REDPANDA_SECURITY_PROTOCOL, REDPANDA_SASL_MECHANISM and so on.
  --brokers takes precedence over REDPANDA_BROKERS.

Exit codes:
  0    done
  1    the work failed or is not complete: lines not delivered, records lost, a broker that did not respond
  2    the command line or a setting is wrong
  3    not found: the topic, partition, group, transaction, broker or dead letter does not exist
  4    the topic to create exists already
  5    not reachable: no broker, or not the one needed, could be reached or responded in time
  6    refused by a broker, for example for lack of permission or because the group has members; or by
       the schema registry
  130  interrupted before the end

Commands that delete or overwrite something are dry runs, which print the changes, unless --yes is
given.

Examples:
  ailurus demo                                          # on an embedded broker, needs nothing else
  ailurus broker --listen 127.0.0.1:9092                # an in-memory broker to develop against
  ailurus produce orders --key-field orderId < orders.ndjson
  ailurus consume orders --from earliest --exit-at-end --json
  ailurus group describe order-analytics --brokers redpanda:9092
  ailurus group reset order-analytics --to earliest     # dry run; --yes does it
  ailurus dlq show orders.dlq --last 3                  # the errors of records that could not be handled
  ailurus registry check orders-value --file order.avsc # may the schema be registered?";

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(commands::demo::Demo),
    Produce(commands::produce::Produce),
    Consume(commands::consume::Consume),
    Topic(commands::topic::Topic),
    Group(commands::group::Group),
    Txn(commands::txn::Txn),
    Records(commands::records::Records),
    Config(commands::config::Config),
    Acl(commands::acl::Acl),
    Cluster(commands::cluster::Cluster),
    Dlq(commands::dlq::Dlq),
    Registry(commands::registry::Registry),
    Health(commands::health::Health),
    Broker(commands::broker::Broker),
    Serve(commands::serve::Serve),
    Bench(commands::bench::Bench),
    Completions(commands::completions::Completions),
    Man(commands::man::Man),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_that_stands_for_a_call_exists() {
        for (call, line) in ailurus_serve::text::COMMANDS {
            let names = line.split(' ').skip(1);
            let found =
                names.clone().try_fold(&Cli::command(), |command, name| command.find_subcommand(name)).is_some();
            assert!(found && names.count() == 2, "{call}: no {line:?}");
        }
    }

    #[test]
    fn brokers_may_stand_before_or_after_the_command() {
        for line in [["ailurus", "--brokers", "a:1", "health"], ["ailurus", "health", "--brokers", "a:1"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.brokers.as_deref(), Some("a:1"));
        }
    }
}
