//! Changes of the topics of a running subscription.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::FutureExt;
use tokio::sync::oneshot;

use super::SubscriptionTask;
use crate::admin::Admin;
use crate::cluster::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::processor::discovery::{Discovery, TopicChanges};
use crate::processor::worker::WorkerContext;
use crate::text;

/// Resolves when the topics have changed.
pub(in crate::processor) type TopicsReply = oneshot::Sender<Result<()>>;

/// Outcome of a request that a change of topics needs.
pub(super) enum TopicEvent {
    Listed(Result<BTreeSet<String>>),
    /// Topics that can be read, and the first error of others.
    Found {
        topics: Vec<String>,
        error: Option<Error>,
        /// The call of the control, if it is one.
        reply: Option<TopicsReply>,
    },
}

/// Lists the names of the cluster's topics.
pub(in crate::processor) async fn list_topics(client: &Client) -> Result<BTreeSet<String>> {
    Ok(Admin::new(client).list_topics().await?.into_iter().map(|topic| topic.name).collect())
}

/// Finds a topic, and those for its failed records.
async fn find_topic(client: &Client, context: &WorkerContext, topic: &str) -> Result<()> {
    client.cluster().topic(topic, true).await?;
    context.sink.letters().add_topics(&[topic]).await?;
    for name in context.shared.retry_topics.names(topic) {
        client.cluster().topic(&name, true).await?;
    }
    Ok(())
}

impl SubscriptionTask {
    /// Requests the list of topics, where they are chosen by a pattern.
    pub(super) fn start_listing(&mut self) {
        let client = self.client.clone();
        self.topic_events.push(async move { TopicEvent::Listed(list_topics(&client).await) }.boxed());
    }

    /// Looks for topics to subscribe to; the task goes on meanwhile.
    pub(super) fn find_topics(&mut self, topics: Vec<String>, reply: Option<TopicsReply>) {
        let (client, context) = (self.client.clone(), Arc::clone(&self.context));
        let find = async move {
            let (mut found, mut error) = (Vec::new(), None);
            for topic in topics {
                match find_topic(&client, &context, &topic).await {
                    Ok(()) => found.push(topic),
                    Err(e) => _ = error.get_or_insert(e.context(format!("topic {topic:?} can't be subscribed to"))),
                }
            }
            TopicEvent::Found { topics: found, error, reply }
        };
        self.topic_events.push(find.boxed());
    }

    pub(super) async fn on_topic_event(&mut self, event: TopicEvent) {
        match event {
            TopicEvent::Listed(Ok(listed)) => self.on_listed(&listed).await,
            TopicEvent::Listed(Err(e)) => {
                tracing::warn!(group = %self.context.shared.group(), error = %e.full(), "topics can't be listed, to find new ones: retrying");
            }
            TopicEvent::Found { topics, error, reply: None } => {
                if let Some(e) = error {
                    tracing::error!(group = %self.context.shared.group(), error = %e.full(), "a topic that matches the pattern can't be read: retrying");
                }
                if let Err(e) = self.change_topics(&topics, &[], true).await {
                    tracing::warn!(error = %e.full(), "topics can't be changed");
                }
            }
            TopicEvent::Found { error: Some(e), reply: Some(reply), .. } => _ = reply.send(Err(e)),
            TopicEvent::Found { topics, error: None, reply: Some(reply) } => {
                self.discovery.iter_mut().for_each(|discovery| discovery.on_added(&topics));
                _ = reply.send(self.change_topics(&topics, &[], false).await);
            }
        }
    }

    async fn on_listed(&mut self, listed: &BTreeSet<String>) {
        let (shared, letters) = (&self.context.shared, self.context.sink.letters());
        let changes = self
            .discovery
            .as_mut()
            .map(|discovery| discovery.on_listed(listed, &shared.topics(), |topic| letters.has_failed_records(topic)));
        let TopicChanges { added, removed } = changes.unwrap_or_default();
        if !added.is_empty() {
            tracing::info!(group = %shared.group(), topics = %text::list(&added), "new topics match the pattern");
            self.find_topics(added, None);
        }
        if !removed.is_empty() {
            if let Err(e) = self.change_topics(&[], &removed, false).await {
                tracing::warn!(error = %e.full(), "topics that do not exist any more stay in the subscription");
            }
        }
    }

    /// Removes topics for the control.
    pub(super) async fn remove_topics(&mut self, topics: &[String], reply: TopicsReply) {
        let outcome = self.change_topics(&[], topics, false).await;
        if outcome.is_ok() {
            self.discovery.iter_mut().for_each(|discovery: &mut Discovery| discovery.on_removed(topics));
        }
        _ = reply.send(outcome); // it may have been dropped
    }

    /// Subscribes to topics with their retry topics, or no more. New ones were created after the
    /// subscription.
    async fn change_topics(&mut self, added: &[String], removed: &[String], are_new: bool) -> Result<()> {
        let context = Arc::clone(&self.context);
        let (shared, retry_topics) = (&context.shared, &context.shared.retry_topics);
        let with_retries =
            |topic: &String| std::iter::once(topic.clone()).chain(retry_topics.names(topic)).collect::<Vec<_>>();
        let mut topics = shared.topics();
        if let Some(unknown) = removed.iter().find(|topic| !topics.contains(*topic)) {
            let what = format!("group {:?} is not subscribed to topic {unknown:?} here", shared.group());
            return Err(Error::new(ErrorKind::Config, what));
        }
        topics.extend(added.iter().flat_map(with_retries));
        removed.iter().flat_map(with_retries).for_each(|topic| _ = topics.remove(&topic));
        if topics.is_empty() {
            let what = format!(
                "the last topic of group {:?} can't be removed: pause the subscription, or shut it down",
                shared.group()
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        shared.set_topics(topics.clone());
        context.sink.letters().remove_topics(removed);
        let new_topics = if are_new { added.iter().cloned().collect() } else { BTreeSet::new() };
        self.consumer.set_topics(topics, new_topics).await;
        Ok(())
    }
}
