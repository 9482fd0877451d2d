//! Event streaming for Redpanda and Apache Kafka in pure Rust.

pub mod admin;
pub mod cluster;
pub mod config;
pub mod consumer;
mod error;
pub mod event;
pub mod health;
pub mod processor;
pub mod producer;
pub mod record;
pub mod service;
mod wire;

pub use admin::Admin;
pub use cluster::Client;
pub use config::{
    AssignorKind, BrokerAddr, Compression, Config, ConfigBuilder, ConsumerConfig, OffsetReset, ProcessorConfig,
    ProducerConfig,
};
pub use consumer::{Committer, Consumer, ConsumerEvent, Message, Records, Revocation, StartOffset};
pub use error::{Error, ErrorKind, Result};
pub use event::{AnyEvent, Envelope, Event};
pub use health::Health;
pub use processor::{Processor, Subscription};
pub use producer::{Acknowledgement, Delivery, Producer, ProducerRecord};
pub use record::{Headers, Record, TopicPartition};
pub use service::{EventMessage, RedpandaService, SendOptions};
