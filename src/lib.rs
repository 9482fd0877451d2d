//! Event streaming for Redpanda and Apache Kafka in pure Rust: a producer, consumer groups, and a handler runtime with
//! retries and dead letters. No librdkafka, no C.
//!
//! ```no_run
//! # use std::{borrow::Cow, time::Duration};
//! # use ailurus::{Compression, Config, Envelope, Event, RedpandaService, SendOptions};
//! # #[derive(serde::Serialize, serde::Deserialize)]
//! # #[serde(rename_all = "camelCase")]
//! # struct OrderPaid { order_id: String }
//! # impl Event for OrderPaid {
//! #     const TYPE: &'static str = "order.paid";
//! #     fn key(&self) -> Option<Cow<'_, str>> { Some(self.order_id.as_str().into()) }
//! # }
//! # async fn example() -> ailurus::Result<()> {
//! let service = RedpandaService::connect(Config::from_env()?).await?;
//!
//! let handle = |event: Envelope<OrderPaid>| async move { println!("{} is paid", event.data.order_id) };
//! let subscription = service.subscribe(["orders"], "billing", handle).await?;
//!
//! let event = OrderPaid { order_id: "o-1".into() };
//! let options = SendOptions::new().compression(Compression::gzip(3)?);
//! let ack = service.send_message("orders", &event, options).await?;
//! println!("{}/{} at {:?}", ack.topic, ack.partition, ack.offset);
//!
//! subscription.shutdown().await?; // finishes in-flight records, commits, leaves the group
//! service.close(Duration::from_secs(10)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to begin
//!
//! | for | see |
//! |---|---|
//! | typed events, sent and handled | [`RedpandaService`], [`Event`], [`EventType`] |
//! | records, sent | [`Producer`]; in transactions: [`TransactionalProducer`] |
//! | a handler for each record of a group's topics | [`Processor`]; for each event type: [`Router`] |
//! | records, read in a group or not | [`Consumer`] |
//! | topics, groups, offsets, configurations, access control lists | [`Admin`] |
//! | cluster health and consumer lag | [`Health`] |
//! | effects in a database, exactly once; an outbox | [`store`] |
//! | metrics | [`metrics`] |
//! | graceful shutdown on SIGTERM and Ctrl-C | [`Subscription::run_until_signal`], [`signal`] |
//! | settings, from code, environment or `.env` | [`Config`] |
//!
//! Everything is created from a [`Client`], the handle of a cluster, and runs on tokio. Close producers and subscriptions
//! before their client: their final sends and commits use its metadata.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `processor` (default) | [`Processor`], [`RedpandaService`], [`Health`] and [`store`]; includes `admin` and `events` |
//! | `admin` | [`Admin`] |
//! | `events` | [`Event`], [`EventType`] and the envelope, JSON values |
//! | `env` (default) | [`Config::from_env`]: settings of `REDPANDA_*` variables and `.env` |
//! | `tls` | [TLS](SecurityProtocol::Ssl) by rustls, with cryptography that compiles no C; needs Rust 1.89 on x86-64 and aarch64 |
//! | `tls-ring` | TLS by rustls on ring, which compiles C; takes precedence over `tls` |
//!
//! [`Producer`] and [`Consumer`] need none of them: a program that only produces builds with `default-features = false`.
//!
//! # Errors
//!
//! There is one [`Error`]; its text says what failed, where and after how long, and its [`kind`](Error::kind) is for code. What
//! can be retried has been, within the deadline of the call.
//!
//! # Types of other crates
//!
//! Some types of this interface belong to other crates. These are re-exported, so that an application need not depend on the
//! same version: [`bytes`] ([`Record`]'s keys and values), [`serde_json`]
//! ([`AnyEvent`]), [`tower_service`] (services as [`Handler`]s) and [`tracing`] (spans in [`trace`]).

#![cfg_attr(docsrs, feature(doc_cfg))]
// What only some features use is not marked item by item.
#![cfg_attr(not(feature = "processor"), allow(dead_code, unused_imports))]

#[cfg(feature = "admin")]
pub mod admin;
mod assignor;
pub mod cluster;
mod code;
pub mod config;
pub mod consumer;
mod error;
#[cfg(feature = "events")]
pub mod event;
mod failure;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "processor")]
pub mod health;
mod lock;
pub mod metrics;
pub mod net;
mod partitioner;
#[cfg(feature = "processor")]
pub mod processor;
pub mod producer;
pub mod record;
#[cfg(feature = "processor")]
pub mod service;
pub mod signal;
#[cfg(feature = "processor")]
pub mod store;
mod text;
mod timestamp;
pub mod trace;
mod wire;

#[cfg(feature = "processor")]
#[doc(no_inline)]
pub use tower_service;
#[doc(no_inline)]
pub use {bytes, serde_json, tracing};

#[cfg(feature = "admin")]
pub use admin::Admin;
pub use cluster::Client;
#[cfg(feature = "env")]
pub use config::ClientCredentials;
pub use config::{
    Acks, AssignorKind, BrokerAddr, Compression, Config, ConfigBuilder, ConsumerConfig, Credentials, GroupName,
    GroupProtocol, HandlerOrdering, IsolationLevel, OAuthBearer, OffsetReset, PartitionerKind, ProcessorConfig,
    ProducerConfig, SaslConfig, SaslMechanism, Secret, SecurityProtocol, TlsConfig, TokenError, TokenFuture,
    TokenProvider, TokenSource,
};
pub use consumer::{
    CommitHandle, Committer, Consumer, ConsumerBuilder, ConsumerEvent, ConsumerGroupMetadata, Message, MessageStream,
    OffsetAndMetadata, ReaderBuilder, Records, Revocation, StartOffset,
};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "events")]
pub use event::{AnyEvent, Envelope, Event, EventType};
#[cfg(feature = "processor")]
pub use health::Health;
#[cfg(feature = "processor")]
pub use processor::{Handler, Outcome, Processor, Router, Subscription, Unfinished};
pub use producer::{
    Acknowledgement, Delivery, Producer, ProducerBuilder, ProducerRecord, Transaction, TransactionalProducer,
};
pub use record::{Headers, Record, TopicPartition};
#[cfg(feature = "processor")]
pub use service::{EventMessage, RedpandaService, SendOptions};
pub use timestamp::Timestamp;
pub use trace::TraceContext;

// The code in the guides compiles: they are documentation when doctests are collected, and only then.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
#[cfg(doctest)]
#[doc = include_str!("../docs/delivery-guarantees.md")]
mod delivery_guarantees {}
#[cfg(doctest)]
#[doc = include_str!("../docs/errors.md")]
mod errors {}
#[cfg(doctest)]
#[doc = include_str!("../docs/from-kafkajs.md")]
mod from_kafkajs {}
#[cfg(doctest)]
#[doc = include_str!("../docs/from-rdkafka.md")]
mod from_rdkafka {}
#[cfg(doctest)]
#[doc = include_str!("../docs/transactions.md")]
mod transactions {}
#[cfg(doctest)]
#[doc = include_str!("../docs/tuning.md")]
mod tuning {}
