//! What a member does about errors.

use std::time::Instant;

use super::{JOIN_EPOCH, Kip848Member, Phase};
use crate::code;
use crate::consumer::group::classic::COORDINATOR_MOVE_GRACE;
use crate::consumer::group::requests::{Action, RequestFailure};
use crate::error::{Error, ErrorKind, is_retriable_code};
use crate::failure::{is_final, is_final_code};

impl Kip848Member {
    /// The cluster does not let us speak this protocol.
    pub(super) fn not_offered(&mut self, now: Instant, why: &str) {
        if let Phase::Leaving { .. } = self.phase {
            return self.gone(now, Ok(()));
        }
        let group = &self.settings.group;
        if self.settings.may_be_classic {
            tracing::info!(%group, why, "the consumer group protocol is not offered: the classic one is spoken");
            self.lose();
            self.phase = Phase::Ended;
            self.actions.push_back(Action::FallBackToClassic);
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

    /// The group answers as it should.
    pub(super) fn recovered(&mut self, now: Instant) {
        if let Some(lasted) = self.outage.record_recovery(now) {
            tracing::warn!(group = %self.settings.group, member = %self.member_id, "the membership works again, after {lasted}");
        }
    }

    pub(super) fn failed(&mut self, now: Instant, doing: &str, failure: RequestFailure, why: &str) {
        self.full = true; // the answer may have been lost on its way, or another coordinator knows less
        let leaving = matches!(self.phase, Phase::Leaving { .. });
        let waits = self.may_wait_for_instance(now, &failure);
        let group = self.settings.group.clone();
        let code = match failure {
            RequestFailure::Connection(e) => {
                self.coordinator = false;
                return self.again_unless_final(now, e.context(format!("{doing} in group {group:?}")), None);
            }
            RequestFailure::Code(code) => code,
        };
        let said = if why.is_empty() { hint(code).to_owned() } else { format!(": {why}") };
        let e = Error::broker(code, format_args!("{doing} in group {group:?}{said}"));
        match code {
            code::COORDINATOR_LOAD_IN_PROGRESS | code::COORDINATOR_NOT_AVAILABLE | code::NOT_COORDINATOR => {
                self.coordinator &= code == code::COORDINATOR_LOAD_IN_PROGRESS;
                if let Some(lasted) = self.outage.record_failure_with_grace(now, &e, COORDINATOR_MOVE_GRACE) {
                    tracing::warn!(%group, error = %e.full(), "the group has no coordinator that is ready, {lasted}; it is looked up again");
                }
                self.wait(now);
            }
            code::UNKNOWN_MEMBER_ID
            | code::FENCED_MEMBER_EPOCH
            | code::GROUP_ID_NOT_FOUND
            | code::FENCED_INSTANCE_ID
                if leaving =>
            {
                self.gone(now, Ok(())); // not a member any more
            }
            code::UNSUPPORTED_VERSION | code::GROUP_ID_NOT_FOUND if self.epoch == JOIN_EPOCH => {
                let what = if why.is_empty() { "the coordinator refuses it" } else { why };
                self.not_offered(now, &format!("{what} (error code {code})"));
            }
            code::UNKNOWN_MEMBER_ID | code::FENCED_MEMBER_EPOCH | code::GROUP_ID_NOT_FOUND => {
                if self.outage.record_failure(now, &e).is_some() {
                    tracing::warn!(%group, member = %self.member_id, code, why, "the group goes on without this member; it joins anew");
                }
                self.rejoin(now);
            }
            // That of a member that has died is free when its session is over.
            code::UNRELEASED_INSTANCE_ID if waits => {
                if let Some(lasted) = self.outage.record_failure(now, &e) {
                    tracing::warn!(%group, why, "the instance id is another member's, {lasted}; it is tried again until that one's session is over");
                }
                self.wait(now);
            }
            code => self.again_unless_final(now, e, Some(code)),
        }
    }

    fn again_unless_final(&mut self, now: Instant, e: Error, code: Option<i16>) {
        // Who leaves for good waits for an answer, and a refusal is one.
        let is_answer = self.closing && code.is_some_and(|code| !is_retriable_code(code));
        if is_answer || is_final(&e) || code.is_some_and(is_final_code) {
            return self.end(Err(e));
        }
        if let Some(lasted) = self.outage.record_failure(now, &e) {
            let group = &self.settings.group;
            tracing::warn!(%group, error = %e.full(), "the membership has met with trouble, {lasted}; it is tried again");
        }
        self.wait(now);
    }

    fn may_wait_for_instance(&mut self, now: Instant, failure: &RequestFailure) -> bool {
        if !matches!(failure, RequestFailure::Code(code::UNRELEASED_INSTANCE_ID)) {
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
