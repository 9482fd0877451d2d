//! The groups of the cluster and their pending requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::group::{Group, GroupResponse, RequestId};

/// All groups, whichever node coordinates them.
#[derive(Debug)]
pub(crate) struct GroupCoordinator {
    groups: BTreeMap<String, Group>,
    pending: HashMap<RequestId, oneshot::Sender<GroupResponse>>,
    last_request_id: RequestId,
    initial_rebalance_delay: Duration,
    session_timeout: Duration,
    changed: Arc<Notify>,
}

impl GroupCoordinator {
    /// Creates a coordinator without groups; `session_timeout` is for the `consumer` protocol.
    pub fn new(initial_rebalance_delay: Duration, session_timeout: Duration) -> Self {
        Self {
            groups: BTreeMap::new(),
            pending: HashMap::new(),
            last_request_id: 0,
            initial_rebalance_delay,
            session_timeout,
            changed: Arc::default(),
        }
    }

    /// Returns what is notified after a change that may have brought a deadline forward.
    pub fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    pub fn get(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(id, g)| (id.as_str(), g))
    }

    pub fn delete(&mut self, id: &str) {
        self.groups.remove(id);
    }

    pub fn delete_offsets_of_topic(&mut self, topic: &str) {
        self.groups.values_mut().for_each(|g| g.delete_offsets_of_topic(topic));
    }

    /// Returns a group, created if missing.
    fn get_or_create(&mut self, id: &str) -> &mut Group {
        let (delay, session) = (self.initial_rebalance_delay, self.session_timeout);
        self.groups.entry(id.to_owned()).or_insert_with(|| Group::new(delay, session))
    }

    /// Applies `step` to a group, created if `create`, and sends the responses it produces. `None`
    /// if there is no such group.
    pub fn update<T>(&mut self, id: &str, create: bool, step: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let group = if create { self.get_or_create(id) } else { self.groups.get_mut(id)? };
        let result = step(group);
        let responses = group.take_responses();
        self.deliver(responses);
        self.changed.notify_one();
        Some(result)
    }

    /// Applies `step`, whose response may come later: through the receiver.
    pub fn submit(
        &mut self,
        id: &str,
        create: bool,
        step: impl FnOnce(&mut Group, RequestId),
    ) -> Option<oneshot::Receiver<GroupResponse>> {
        self.last_request_id += 1;
        let request_id = self.last_request_id;
        let (sender, receiver) = oneshot::channel();
        self.pending.insert(request_id, sender);
        if self.update(id, create, |group| step(group, request_id)).is_none() {
            self.pending.remove(&request_id);
            return None;
        }
        Some(receiver)
    }

    fn deliver(&mut self, responses: Vec<(RequestId, GroupResponse)>) {
        for (request_id, response) in responses {
            if let Some(sender) = self.pending.remove(&request_id) {
                // Without a receiver the connection was closed: its member's session expires.
                let _ = sender.send(response);
            }
        }
    }

    /// Handles expired deadlines; returns the next one.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        let mut responses = Vec::new();
        for group in self.groups.values_mut().filter(|g| g.deadline().is_some_and(|d| d <= now)) {
            group.tick(now);
            responses.append(&mut group.take_responses());
        }
        self.deliver(responses);
        self.groups.values().filter_map(Group::deadline).min()
    }
}
