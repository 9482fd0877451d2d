//! Every error code in every state.

use super::*;
use crate::failure::{is_fatal, is_fatal_code};

/// Codes that the protocol's guide calls retriable: a member that leaves for good retries after
/// these alone.
const RETRIABLE: &[i16] = &[
    2, 3, 5, 6, 7, 9, 13, 14, 19, 20, 41, 56, 70, 71, 72, 74, 75, 78, 80, 83, 84, 88, 89, 100, 103, 106, 122, 123, 133,
];

/// A state, and the response that it waits for.
struct State {
    name: &'static str,
    reach: fn() -> Test,
    respond: fn(&mut Test, i16),
    /// Codes with a meaning of their own in this state.
    own: &'static [(i16, &'static str)],
}

fn joining() -> Test {
    let mut t = Test::new();
    t.connect();
    t.actions();
    t
}

fn syncing() -> Test {
    let mut t = joining();
    t.join(1);
    t.actions();
    t
}

fn joining_with_owned() -> Test {
    let mut t = Test::cooperative();
    t.hear_of_rebalance();
    t.actions();
    t
}

fn syncing_with_owned() -> Test {
    let mut t = joining_with_owned();
    t.join_by(2, "cooperative-sticky");
    t.actions();
    t
}

fn draining() -> Test {
    let mut t = Test::with_heartbeat_in_flight();
    t.heartbeat(code::REBALANCE_IN_PROGRESS);
    t.wait();
    t.actions();
    t
}

fn leaving() -> Test {
    let mut t = Test::stable();
    t.m.leave(t.now);
    t.actions();
    t
}

fn join(t: &mut Test, code: i16) {
    t.refuse_join(code);
}

fn sync(t: &mut Test, code: i16) {
    t.m.on_sync_response(t.now, Err(RequestFailure::Code(code)));
}

fn beat(t: &mut Test, code: i16) {
    t.heartbeat(code);
}

const STATES: &[State] = &[
    State {
        name: "finding",
        reach: Test::new,
        respond: |t, code| t.m.on_coordinator_found(t.now, Err(Error::broker(code, "finding"))),
        // The search for the coordinator is retried after any transient failure.
        own: &[(15, "find"), (16, "find")],
    },
    State {
        name: "joining",
        reach: joining,
        respond: join,
        own: &[
            (15, "find"),
            (16, "find"),
            (22, "join as m0"),
            (25, "join as m0"),
            (69, "join as m0"),
            (27, "join as m0"),
            (79, "join as m1"),
        ],
    },
    State {
        name: "joining with owned",
        reach: joining_with_owned,
        respond: join,
        own: &[
            (15, "find"),
            (16, "find"),
            (22, "lose, join as m1"),
            (25, "lose, join as m0"),
            (69, "lose, join as m0"),
            (27, "join with it"),
            (79, "join with it"),
        ],
    },
    State {
        name: "syncing",
        reach: syncing,
        respond: sync,
        own: &[
            (15, "find"),
            (16, "find"),
            (22, "join as m1"),
            (25, "join as m0"),
            (69, "join as m0"),
            (27, "join as m1"),
        ],
    },
    State {
        name: "syncing with owned",
        reach: syncing_with_owned,
        respond: sync,
        own: &[
            (15, "find"),
            (16, "find"),
            (22, "lose, join as m1"),
            (25, "lose, join as m0"),
            (69, "lose, join as m0"),
            (27, "join with it"),
        ],
    },
    State {
        name: "stable",
        reach: Test::with_heartbeat_in_flight,
        respond: beat,
        own: &[
            (15, "find"),
            (16, "find"),
            (22, "lose, join as m1"),
            (25, "lose, join as m0"),
            (69, "lose, join as m0"),
            (27, "drain"),
        ],
    },
    State {
        name: "draining",
        reach: draining,
        respond: beat,
        own: &[
            (15, "find"),
            (16, "find"),
            (22, "lose, join as m1"),
            (25, "lose, join as m0"),
            (69, "lose, join as m0"),
            (27, "again"),
        ],
    },
    State {
        name: "leaving",
        reach: leaving,
        respond: |t, code| t.m.on_leave_response(t.now, Err(RequestFailure::Code(code))),
        own: &[(15, "find"), (16, "find"), (22, "again"), (25, "stop"), (69, "stop"), (27, "again")],
    },
];

/// The next action of a member, after a wait if it needs one.
fn next_action(t: &mut Test) -> String {
    let mut actions = t.actions();
    if actions.iter().all(|d| d.starts_with("lost")) && t.m.poll_timeout().is_some() {
        t.wait();
        actions.extend(t.actions());
    }
    let lost = if actions.iter().any(|d| d.starts_with("lost")) { "lose, " } else { "" };
    let last = actions.last().map_or("", String::as_str);
    let what = match last.split(' ').next().unwrap() {
        "failed" => return "fail".into(),
        "revoke" => "drain",
        "join" if last.contains(" with ") => "join with it",
        "join" if last == "join \"\"" => "join as m0",
        "join" => "join as m1",
        "sync" | "heartbeat" | "leave" => "again",
        other => other,
    };
    format!("{lost}{what}")
}

#[test]
fn every_code_in_every_state() {
    for state in STATES {
        // The retry in this state.
        let again = match state.name {
            "finding" => "find",
            "joining" => "join as m0",
            "joining with owned" => "join with it",
            _ => "again",
        };
        for code in -1..=133_i16 {
            if code == 0 {
                continue;
            }
            let mut t = (state.reach)();
            if state.name == "finding" {
                t.actions();
            }
            (state.respond)(&mut t, code);
            let own = state.own.iter().find(|(c, _)| *c == code).map(|(_, what)| *what);
            // The search for the coordinator returns an error without its code.
            let by_code = state.name != "finding" && is_fatal_code(code);
            let is_fatal = by_code || is_fatal(&Error::broker(code, state.name));
            let is_transient = if state.name == "leaving" { RETRIABLE.contains(&code) } else { !is_fatal };
            let wanted = own.unwrap_or(if is_transient { again } else { "fail" });
            let next = next_action(&mut t);
            assert_eq!(next, wanted, "code {code} while {}", state.name);
            if wanted == "fail" {
                assert_eq!(t.m.poll_timeout(), None, "stopped: code {code} while {}", state.name);
            }
        }
    }
}

#[test]
fn every_code_of_a_commit() {
    for code in -1..=133_i16 {
        let wanted = match code {
            15 | 16 => "find",
            22 => "lose, join as m1",
            25 | 69 => "lose, join as m0",
            27 => "drain",
            82 => "fail",
            _ => "again", // not about the membership: the next heartbeat is sent in time
        };
        let mut t = Test::stable();
        t.m.on_commit_refused(t.now, code);
        assert_eq!(next_action(&mut t), wanted, "code {code}");
    }
}
