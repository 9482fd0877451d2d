#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

/// A cluster in which much is wrong, and whose names are what they should not be.
fn health() -> Health {
    let bad = "<img src=x onerror=alert(1)>\"'&";
    let partition = |n: i32, activity: &str, quiet: Option<u64>, paused: Option<&str>| {
        json!({
            "topic": bad, "partition": n, "activity": activity, "quietMs": quiet, "position": 1234 * n, "committed": null,
            "lag": 5000 * n, "inFlight": 1, "parkedKeys": 0, "paused": paused,
        })
    };
    let partitions = vec![
        partition(0, "idle", None, None),
        partition(1, "busy", Some(10), None),
        partition(2, "stalled", Some(75_400), Some(bad)),
    ];
    let all = json!({
        "status": "unhealthy", "problems": [bad], "ageMs": 3, "clusterId": bad, "controllerId": 2,
        "brokers": [
            {"id": 1, "address": bad, "status": "down", "latencyMs": null, "error": bad},
            {"id": 2, "address": "b:9092", "status": "up", "latencyMs": 1.25, "error": null},
        ],
        "topics": [
            {"name": bad, "exists": true, "partitions": 3, "withoutLeader": 1, "underReplicated": 2},
            {"name": "gone", "exists": false, "partitions": 0, "withoutLeader": 0, "underReplicated": 0},
        ],
        "subscriptions": [{
            "group": bad, "topics": [bad], "state": "member", "stateMs": 7_300_000, "memberId": bad, "generation": 4,
            "activity": "stalled", "lag": 15000, "partitions": partitions,
        }],
        "transactionalProducers": [{
            "transactionalId": bad, "group": bad, "state": "fenced", "openMs": null, "timeoutMs": 40_000, "committed": 12_345,
            "aborted": 7, "commitMs": 3.25, "lastError": {"error": bad, "action": "fenced", "ageMs": 61_000},
        }],
    });
    serde_json::from_value(all).unwrap()
}

fn shown(health: &Health) -> String {
    body(health, &LagHistory::default(), Timestamp::UNIX_EPOCH, "").into_string()
}

#[test]
fn every_name_is_escaped() {
    let html = shown(&health());
    assert!(!html.contains("<img") && !html.contains("\"'&<"), "{html}");
    assert!(html.matches("&lt;img src=x onerror=alert(1)&gt;").count() >= 9, "{html}");
}

#[test]
fn states_are_words() {
    let html = shown(&health());
    for words in [
        "Unhealthy</h1>",
        ">idle</span>",
        ">busy</span>",
        ">stalled</span> for 75 s",
        ">down</span>",
        ">up</span><small>controller</small>",
        ">1 missing</span>",
        ">behind in 2</span>",
        ">does not exist</span>",
        "member for 2 h",
        "<dd>15,000</dd>",
        "1.2 ms",
        "2,468",
        ">fenced</span>",
        "12,345",
        "61 s ago: ",
        "00:00:00 UTC",
    ] {
        assert!(html.contains(words), "no {words:?} in {html}");
    }
}

#[test]
fn a_table_shows_the_worst_and_says_what_it_leaves_out() {
    let mut health = health();
    let [group] = &mut health.subscriptions[..] else { unreachable!() };
    let idle = group.partitions[0].clone();
    let stalled = group.partitions.pop().unwrap();
    group.partitions = (0..1500)
        .map(|n| {
            let mut p = if n == 1400 { stalled.clone() } else { idle.clone() };
            p.partition = n;
            p
        })
        .collect();
    let html = shown(&health);
    assert!(html.contains(r#"<th scope="row">1400</th>"#), "the stalled one");
    assert!(html.contains("and 1,300 more"), "{html}");
    health.problems = (0..30).map(|n| n.to_string()).collect();
    assert!(shown(&health).contains("<li>and 10 more</li>"));
}

#[test]
fn times_are_as_people_say_them() {
    let texts = [0, 119_999, 120_000, 7_199_999, 7_200_000, 172_800_000].map(|ms| duration(Duration::from_millis(ms)));
    assert_eq!(texts, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
}
