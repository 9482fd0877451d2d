//! All groups, the requests that are parked in them, and the task that lets their deadlines pass.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::group::{Answer, Group, Ticket};

/// Every group of the cluster, whichever node coordinates it.
#[derive(Debug)]
pub(crate) struct Groups {
    groups: BTreeMap<String, Group>,
    parked: HashMap<Ticket, oneshot::Sender<Answer>>,
    next_ticket: Ticket,
    initial_delay: Duration,
    session_timeout: Duration,
    changed: Arc<Notify>,
}

impl Groups {
    /// The session timeout is that of members of the `consumer` protocol.
    pub fn new(initial_delay: Duration, session_timeout: Duration) -> Self {
        Self {
            groups: BTreeMap::new(),
            parked: HashMap::new(),
            next_ticket: 0,
            initial_delay,
            session_timeout,
            changed: Arc::default(),
        }
    }

    /// Notified after a change that may have brought a deadline forward.
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

    pub fn forget_topic(&mut self, topic: &str) {
        self.groups.values_mut().for_each(|g| g.forget_topic(topic));
    }

    /// The group, made if it is not there.
    fn get_or_create(&mut self, id: &str) -> &mut Group {
        let (delay, session) = (self.initial_delay, self.session_timeout);
        self.groups.entry(id.to_owned()).or_insert_with(|| Group::new(delay, session))
    }

    /// Lets `step` change a group, made if `create`, and delivers the answers that come of it. `None`: no such group.
    pub fn update<T>(&mut self, id: &str, create: bool, step: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let group = if create { self.get_or_create(id) } else { self.groups.get_mut(id)? };
        let result = step(group);
        let answers = group.take_answers();
        self.deliver(answers);
        self.changed.notify_one();
        Some(result)
    }

    /// As [`update`](Self::update), for a request that may be parked: its answer comes through the receiver.
    pub fn park(
        &mut self,
        id: &str,
        create: bool,
        step: impl FnOnce(&mut Group, Ticket),
    ) -> Option<oneshot::Receiver<Answer>> {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let (sender, receiver) = oneshot::channel();
        self.parked.insert(ticket, sender);
        if self.update(id, create, |group| step(group, ticket)).is_none() {
            self.parked.remove(&ticket);
            return None;
        }
        Some(receiver)
    }

    fn deliver(&mut self, answers: Vec<(Ticket, Answer)>) {
        for (ticket, answer) in answers {
            if let Some(sender) = self.parked.remove(&ticket) {
                // A receiver that is gone is a connection that was closed: its member's session ends in time.
                let _ = sender.send(answer);
            }
        }
    }

    /// Handles the deadlines that have passed; returns the next one.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        let mut answers = Vec::new();
        for group in self.groups.values_mut().filter(|g| g.deadline().is_some_and(|d| d <= now)) {
            group.tick(now);
            answers.append(&mut group.take_answers());
        }
        self.deliver(answers);
        self.groups.values().filter_map(Group::deadline).min()
    }
}
