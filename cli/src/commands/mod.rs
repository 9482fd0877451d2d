//! One module per command.

pub mod bench;
pub mod broker;
pub mod consume;
pub mod demo;
pub mod dlq;
pub mod group;
pub mod health;
pub mod produce;
pub mod serve;
pub mod topic;
