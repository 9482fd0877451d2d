#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[test]
fn text_is_rfc_3339_in_utc() {
    for (millis, auto, seconds, with_millis) in [
        (0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_120, "2023-11-14T22:13:20.120Z", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.120Z"),
        (-1, "1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999Z"),
    ] {
        let t = at(millis);
        assert_eq!([t.to_string(), format!("{t:.0}"), format!("{t:.3}")], [auto, seconds, with_millis]);
        assert_eq!(auto.parse::<Timestamp>().unwrap(), t);
    }
    assert_eq!(at(i64::MAX).to_string(), format!("{} ms", i64::MAX));
}

#[test]
fn offsets_from_utc_and_more_digits_are_parsed() {
    for (text, millis) in [
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01.5Z", 1500),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("1969-12-31T23:59:59.9999Z", -1),
    ] {
        assert_eq!(text.parse::<Timestamp>().unwrap(), at(millis), "{text}");
    }
    for text in ["", "1970-01-01", "1970-01-01T00:00:00", "0", "yesterday"] {
        let error = text.parse::<Timestamp>().unwrap_err();
        assert!(error.to_string().contains("not an RFC 3339 time"), "{error}");
    }
}

#[test]
fn system_times_are_rounded_down() {
    let epoch = SystemTime::UNIX_EPOCH;
    for (time, millis) in [
        (epoch + Duration::from_nanos(1_999_999), 1),
        (epoch - Duration::from_nanos(1), -1),
        (epoch - Duration::from_millis(2), -2),
    ] {
        assert_eq!(Timestamp::from(time), at(millis));
    }
}

#[test]
fn spans_saturate() {
    assert_eq!(at(5).saturating_duration_since(at(9)), Duration::ZERO);
    assert_eq!(at(i64::MAX).saturating_duration_since(at(i64::MIN)), Duration::from_millis(u64::MAX));
    assert_eq!(at(1).saturating_add(Duration::MAX), at(i64::MAX));
    assert_eq!(at(-5).saturating_sub(Duration::MAX), at(i64::MIN));
    assert_eq!(Timestamp::now().saturating_add(Duration::from_secs(3600)).elapsed(), Duration::ZERO);
    assert!(Timestamp::UNIX_EPOCH.elapsed() > Duration::from_secs(1_700_000_000));
}

#[test]
fn formats_have_text_or_numbers_of_milliseconds() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Times {
        text: Timestamp,
        #[serde(with = "millis")]
        number: Timestamp,
        #[serde(with = "millis")]
        span: Option<Duration>,
        #[serde(with = "millis::fractional")]
        short: Option<Duration>,
    }
    let short = Some(Duration::from_nanos(1_234_400));
    let times = Times { text: at(7), number: at(8), span: Some(Duration::from_micros(9999)), short };
    let json = serde_json::to_string(&times).unwrap();
    assert_eq!(json, r#"{"text":"1970-01-01T00:00:00.007Z","number":8,"span":9,"short":1.234}"#);
    let (span, short) = (Some(Duration::from_millis(9)), Some(Duration::from_micros(1234)));
    assert_eq!(serde_json::from_str::<Times>(&json).unwrap(), Times { span, short, ..times });
    assert!(serde_json::from_str::<Times>(&json.replace("1.234", "-1.0")).is_err());
}

proptest! {
    #[test]
    fn text_and_system_time_have_the_same_millisecond(millis in -62_135_596_800_000..253_402_300_800_000_i64) {
        prop_assert_eq!(at(millis).to_string().parse::<Timestamp>().unwrap(), at(millis));
        prop_assert_eq!(Timestamp::from(SystemTime::try_from(at(millis)).unwrap()), at(millis));
    }
}
