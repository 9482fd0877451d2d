//! One module per command.

pub mod acl;
pub mod bench;
pub mod broker;
pub mod cluster;
pub mod completions;
pub mod config;
pub mod consume;
pub mod demo;
pub mod dlq;
pub mod group;
pub mod health;
pub mod man;
pub mod produce;
pub mod records;
pub mod registry;
pub mod serve;
pub mod topic;
pub mod txn;
