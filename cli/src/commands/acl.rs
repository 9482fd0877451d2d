//! `ailurus acl`: access control lists.

use std::str::FromStr;

use ailurus::Admin;
use ailurus::admin::{Acl as List, AclFilter, AclOperation, AclPermission, PatternKind, ResourceKind};
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use crate::exit::{Exit, Usage};
use crate::options::{Global, Json};
use crate::output::{self, Table, note};
use crate::settings;

/// List, create and delete access control lists.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Acl {
    #[command(subcommand)]
    action: Action,
}

const AFTER_HELP: &str = "\
It is an error if the brokers have no authorizer.

Kinds of resources are topic, group, cluster, transactional-id, delegation-token and user. Operations
are all, read, write, create, delete, alter, describe, cluster-action, describe-configs,
alter-configs, idempotent-write, create-tokens and describe-tokens.

Examples:
  ailurus acl create --principal User:billing --operation read --resource topic:orders
  ailurus acl create --principal User:billing --operation read --resource group:billing --pattern prefixed
  ailurus acl create --principal User:eve --operation all --resource cluster --permission deny
  ailurus acl list --resource topic:orders --covering        # all that apply to orders
  ailurus acl delete --principal User:billing                # dry run
  ailurus acl delete --principal User:billing --yes";

#[derive(Debug, Subcommand)]
enum Action {
    /// List the access control lists that match; all without options.
    List {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        output: Json,
    },
    /// Create an entry for each principal and operation. One that exists already is no error.
    Create {
        /// Principals, such as User:alice, separated by commas; User:* means all.
        #[arg(long, required = true, value_name = "PRINCIPAL", value_delimiter = ',')]
        principal: Vec<String>,
        /// Operations, separated by commas.
        #[arg(long, required = true, value_name = "OPERATION", value_delimiter = ',')]
        operation: Vec<AclOperation>,
        /// Resource: KIND:NAME such as topic:orders, or cluster. The name * means all.
        #[arg(long, value_name = "KIND:NAME")]
        resource: Resource,
        /// Match of the name: literal, or prefixed for all names that begin with it.
        #[arg(long, value_name = "PATTERN", default_value = "literal")]
        pattern: PatternKind,
        /// Address of the client; * means all.
        #[arg(long, value_name = "HOST", default_value = "*")]
        host: String,
        /// Permission: allow or deny. A denial takes precedence.
        #[arg(long, value_name = "PERMISSION", default_value = "allow")]
        permission: AclPermission,
    },
    /// Delete the access control lists that match.
    ///
    /// Dry run without --yes: prints what would be done.
    #[command(group(ArgGroup::new("which").required(true).multiple(true)
        .args(["resource", "pattern", "principal", "host", "operation", "permission"])))]
    Delete {
        #[command(flatten)]
        filter: Filter,
        /// Do it; without this option a dry run prints what would be done.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Json,
    },
}

/// Options that choose access control lists.
#[derive(Debug, Clone, Args)]
struct Filter {
    /// Kind of resource, or KIND:NAME for exactly this name.
    #[arg(long, value_name = "KIND[:NAME]")]
    resource: Option<Resource>,
    /// Include those that apply to the name of --resource by a prefix or by *.
    #[arg(long, requires = "resource", conflicts_with = "pattern")]
    covering: bool,
    /// Match of the name: literal or prefixed.
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<PatternKind>,
    /// Principal, such as User:alice.
    #[arg(long, value_name = "PRINCIPAL")]
    principal: Option<String>,
    /// Address of the client.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Operation.
    #[arg(long, value_name = "OPERATION")]
    operation: Option<AclOperation>,
    /// Permission: allow or deny.
    #[arg(long, value_name = "PERMISSION")]
    permission: Option<AclPermission>,
}

/// `KIND` or `KIND:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    kind: ResourceKind,
    name: Option<String>,
}

impl FromStr for Resource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').map_or((text, None), |(k, n)| (k, Some(n.to_owned())));
        if name.as_ref().is_some_and(String::is_empty) {
            return Err(format!("the name behind {kind}: is missing"));
        }
        Ok(Self { kind: kind.parse().map_err(|e: ailurus::Error| e.to_string())?, name })
    }
}

impl Resource {
    /// Returns kind and name; the cluster needs no name.
    fn full(self) -> Result<(ResourceKind, String), Usage> {
        const CLUSTER: &str = "kafka-cluster";
        match (self.kind, self.name) {
            (kind, Some(name)) => Ok((kind, name)),
            (ResourceKind::Cluster, None) => Ok((self.kind, CLUSTER.to_owned())),
            (kind, None) => {
                Err(Usage(format!("--resource is {kind}: which one? Write {kind}:NAME, or {kind}:* for all")))
            }
        }
    }
}

impl Filter {
    fn library(self) -> Result<AclFilter, Usage> {
        let mut filter = AclFilter::default();
        if let Some(Resource { kind, name }) = self.resource {
            filter = filter.resource(kind);
            filter = match (name, self.covering) {
                (Some(name), true) => filter.covering(name),
                (Some(name), false) => filter.name(name),
                (None, true) => return Err(Usage("--covering goes with a name: --resource KIND:NAME".into())),
                (None, false) => filter,
            };
        }
        filter = self.pattern.into_iter().fold(filter, AclFilter::pattern);
        filter = self.principal.into_iter().fold(filter, AclFilter::principal);
        filter = self.host.into_iter().fold(filter, AclFilter::host);
        filter = self.operation.into_iter().fold(filter, AclFilter::operation);
        Ok(self.permission.into_iter().fold(filter, AclFilter::permission))
    }
}

pub async fn run(global: &Global, args: Acl) -> anyhow::Result<Exit> {
    settings::admin(global, async |admin| act(admin, args.action).await).await?;
    Ok(Exit::Success)
}

async fn act(admin: &Admin, action: Action) -> anyhow::Result<()> {
    match action {
        Action::List { filter, output } => {
            let found = admin.list_acls(&filter.library()?).await?;
            if output.json {
                output::json(&found)?;
            } else {
                output::print(table(&found))?;
            }
        }
        Action::Create { principal, operation, resource, pattern, host, permission } => {
            let (kind, name) = resource.full()?;
            let one = |principal: &String, operation: AclOperation| {
                let new = if permission == AclPermission::Deny { List::deny } else { List::allow };
                let acl = new(principal.clone(), operation, kind, name.clone()).from_host(host.clone());
                if pattern == PatternKind::Prefixed { acl.prefixed() } else { acl }
            };
            let acls: Vec<_> = principal.iter().flat_map(|p| operation.iter().map(move |o| (p, *o))).collect();
            let acls: Vec<_> = acls.into_iter().map(|(p, o)| one(p, o)).collect();
            admin.create_acls(&acls).await?;
            acls.iter().try_for_each(|acl| output::print(format_args!("created: {acl}\n")))?;
        }
        Action::Delete { filter, yes, output } => {
            let filter = filter.library()?;
            let found = if yes { admin.delete_acls(&filter).await? } else { admin.list_acls(&filter).await? };
            if output.json {
                output::json(&json!({"done": yes, "acls": found}))?;
            } else {
                output::print(table(&found))?;
            }
            if found.is_empty() {
                note(format_args!("there is nothing to delete"));
            } else if !yes {
                note(format_args!("nothing was deleted; --yes does it"));
            }
        }
    }
    Ok(())
}

fn table(acls: &[List]) -> Table {
    let mut table = Table::new(["RESOURCE", "NAME", "PATTERN", "PRINCIPAL", "HOST", "OPERATION", "PERMISSION"]);
    for a in acls {
        table.row([
            a.resource.to_string(),
            a.name.clone(),
            a.pattern.to_string(),
            a.principal.clone(),
            a.host.clone(),
            a.operation.to_string(),
            a.permission.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_resource_has_a_kind_and_a_name_that_may_have_colons() {
        let of = |text: &str| text.parse::<Resource>().map(|r| (r.kind, r.name));
        assert_eq!(of("topic:orders"), Ok((ResourceKind::Topic, Some("orders".into()))));
        assert_eq!(of("user:User:alice"), Ok((ResourceKind::User, Some("User:alice".into()))));
        assert_eq!(of("group"), Ok((ResourceKind::Group, None)));
        assert!(of("queue:x").is_err_and(|e| e.contains("allowed is topic, group")));
        assert!(of("topic:").is_err_and(|e| e.contains("missing")));
        let cluster = "cluster".parse::<Resource>().unwrap().full().unwrap();
        assert_eq!(cluster, (ResourceKind::Cluster, "kafka-cluster".into()));
        assert!("topic".parse::<Resource>().unwrap().full().is_err());
    }
}
