//! What a member does about errors.

use std::time::Instant;

use super::{JOIN, ModernMembership, Phase};
use crate::consumer::membership::is_final;
use crate::consumer::protocol::{Action, Failure, code};
use crate::error::{Error, ErrorKind, is_retriable_code};

impl ModernMembership {
    /// The cluster does not let us speak this protocol.
    pub(super) fn not_offered(&mut self, why: &str) {
        if let Phase::Leaving { .. } = self.phase {
            return self.end(Ok(()));
        }
        let group = &self.settings.group;
        if self.settings.may_be_classic {
            tracing::info!(%group, why, "the consumer group protocol is not offered: the classic one is spoken");
            self.lose();
            self.phase = Phase::Ended;
            self.actions.push_back(Action::GoClassic);
            return;
        }
        let what = format!(
            "group {group:?} can't be joined by the consumer group protocol: {why}; use the classic protocol, or auto (REDPANDA_GROUP_PROTOCOL)"
        );
        self.end(Err(Error::new(ErrorKind::Unsupported, what)));
    }

    /// At once the first time, then with backoff.
    fn rejoin(&mut self, now: Instant) {
        self.lose();
        self.rejoins += 1;
        if self.rejoins > 1 {
            self.wait(now);
        }
    }

    pub(super) fn failed(&mut self, now: Instant, doing: &str, failure: Failure, why: &str) {
        self.full = true; // the answer may have been lost on its way, or another coordinator knows less
        let leaving = matches!(self.phase, Phase::Leaving { .. });
        let waits = self.may_wait_for_instance(now, &failure);
        let group = &self.settings.group;
        let code = match failure {
            Failure::Connection(e) if is_final(&e) => {
                return self.end(Err(e.context(format!("{doing} in group {group:?}"))));
            }
            Failure::Connection(e) => {
                tracing::warn!(%group, error = %e.full(), "{doing} failed; it is tried again");
                self.coordinator = false;
                return self.wait(now);
            }
            Failure::Code(code) => code,
        };
        match code {
            code::COORDINATOR_LOAD_IN_PROGRESS => self.wait(now),
            code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR => {
                tracing::info!(%group, "the group has another coordinator; it is looked up");
                self.coordinator = false;
                self.wait(now);
            }
            code::UNKNOWN_MEMBER_ID
            | code::FENCED_MEMBER_EPOCH
            | code::GROUP_ID_NOT_FOUND
            | code::FENCED_INSTANCE_ID
                if leaving =>
            {
                self.end(Ok(())); // not a member any more
            }
            code::UNSUPPORTED_VERSION | code::GROUP_ID_NOT_FOUND if self.epoch == JOIN => {
                let what = if why.is_empty() { "the coordinator refuses it" } else { why };
                self.not_offered(&format!("{what} (error code {code})"));
            }
            code::UNKNOWN_MEMBER_ID | code::FENCED_MEMBER_EPOCH | code::GROUP_ID_NOT_FOUND => {
                tracing::warn!(%group, member = %self.member_id, code, why, "the group goes on without this member; it joins anew");
                self.rejoin(now);
            }
            // That of a member that has died is free when its session is over.
            code::UNRELEASED_INSTANCE_ID if waits => {
                tracing::warn!(%group, why, "the instance id is another member's; it is tried again until that one's session is over");
                self.wait(now);
            }
            code => {
                let why = if why.is_empty() { hint(code).to_owned() } else { format!(": {why}") };
                let e = Error::broker(code, format_args!("{doing} in group {group:?}{why}"));
                if is_retriable_code(code) && code != code::GROUP_MAX_SIZE_REACHED {
                    tracing::warn!(%group, error = %e, "it is tried again");
                    self.wait(now);
                } else {
                    self.end(Err(e));
                }
            }
        }
    }

    fn may_wait_for_instance(&mut self, now: Instant, failure: &Failure) -> bool {
        if !matches!(failure, Failure::Code(code::UNRELEASED_INSTANCE_ID)) {
            return false;
        }
        let since = *self.taken_since.get_or_insert(now);
        now < since + self.settings.session_timeout
    }
}

fn hint(code: i16) -> &'static str {
    match code {
        code::GROUP_MAX_SIZE_REACHED => " (it has as many members as the broker's group.consumer.max.size allows)",
        code::FENCED_INSTANCE_ID => " (another member has taken over this one's instance id)",
        code::UNRELEASED_INSTANCE_ID => " (another member has this one's instance id)",
        code::UNSUPPORTED_ASSIGNOR => {
            " (the broker's group.consumer.assignors does not have REDPANDA_GROUP_REMOTE_ASSIGNOR)"
        }
        _ => "",
    }
}
