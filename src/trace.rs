//! W3C trace context: the trace of a record, in the headers `traceparent` and `tracestate`.
//!
//! The library starts no trace of its own and needs no tracing system: an application passes on the
//! context of its own system, or makes a [`TraceContext`] here. With a [`Propagator`] for its
//! tracing system, spans and headers are part of its traces without more code. Headers that do not
//! follow the [W3C recommendation] strictly are no trace.
//!
//! [W3C recommendation]: https://www.w3.org/TR/trace-context/

mod propagate;
pub(crate) mod span;

use std::collections::HashSet;
use std::fmt;

pub use propagate::{Propagation, Propagator};

use crate::record::{Header, Headers};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Headers of CloudEvents' distributed tracing extension: the trace in which the event was made.
const CE_TRACEPARENT: &str = "ce_traceparent";
const CE_TRACESTATE: &str = "ce_tracestate";

/// Length of a `traceparent` of version 00.
const TRACEPARENT_LENGTH: usize = 55;
/// Maximum number of list members of a `tracestate`.
const MAX_TRACESTATE_MEMBERS: usize = 32;
const SAMPLED: u8 = 1;

/// A place in a trace: the trace's id, the id of a span in it, whether it is recorded, and what
/// tracing systems add.
///
/// ```
/// use ailurus::{Headers, trace::TraceContext};
///
/// let incoming = Headers::new().with("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
/// let sender = TraceContext::from_headers(&incoming).expect("it is valid");
/// assert!(sender.is_sampled());
///
/// let own = sender.child(); // the same trace, another span
/// let outgoing = Headers::new().with("tenant", "berlin").with_trace(&own);
/// assert_eq!(TraceContext::from_headers(&outgoing), Some(own));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<String>,
}

impl TraceContext {
    /// Creates the first span of a new trace, with random ids.
    pub fn root(sampled: bool) -> Self {
        let flags = if sampled { SAMPLED } else { 0 };
        Self { trace_id: fastrand::u128(1..), span_id: new_span_id(), flags, state: None }
    }

    /// Creates another span of the same trace, with a random id: for the work on a record, and the
    /// records that it sends.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: new_span_id(), ..self.clone() }
    }

    /// Reads a `traceparent`, of version 00 or a later one, and a `tracestate`.
    ///
    /// Returns `None` if the `traceparent` is not valid. A `tracestate` that is not valid is
    /// dropped, as the recommendation has it.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let (version, ids) = (hex(traceparent, 0..2)?, traceparent.as_bytes());
        let complete = match version {
            0 => ids.len() == TRACEPARENT_LENGTH,
            0xff => false,
            _ => ids.len() == TRACEPARENT_LENGTH || ids.get(TRACEPARENT_LENGTH) == Some(&b'-'),
        };
        let separated = [2, 35, 52].into_iter().all(|at| ids.get(at) == Some(&b'-'));
        if !complete || !separated {
            return None;
        }
        let trace_id = hex(traceparent, 3..35).filter(|id| *id != 0)?;
        let span_id = hex(traceparent, 36..52).filter(|id| *id != 0)?;
        let flags = hex(traceparent, 53..55)?;
        let state = tracestate.filter(|s| is_tracestate(s)).map(str::to_owned);
        // Flags that only a later version has are dropped, for version 00 is written.
        let flags = if version == 0 { flags as u8 } else { flags as u8 & SAMPLED };
        Some(Self { trace_id, span_id: span_id as u64, flags, state })
    }

    /// Reads a record's headers: `traceparent`, or the `ce_traceparent` of a CloudEvent; the last
    /// of each counts.
    pub fn from_headers(headers: &Headers) -> Option<Self> {
        let read = |parent, state| Self::parse(headers.get_str(parent)?, joined_values(headers, state).as_deref());
        read(TRACEPARENT, TRACESTATE).or_else(|| read(CE_TRACEPARENT, CE_TRACESTATE))
    }

    /// Returns the trace's id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Returns the span's id, 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    /// Returns whether the parent may have recorded it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Returns the `tracestate`, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// Formats it as a `traceparent` of version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl Headers {
    /// Returns the headers with this trace instead of the one they have.
    ///
    /// ```
    /// use ailurus::{Headers, trace::TraceContext};
    ///
    /// let trace = TraceContext::root(true);
    /// let headers = Headers::new().with("traceparent", "old").with_trace(&trace);
    /// assert_eq!(headers.len(), 1);
    /// assert_eq!(headers.get_str("traceparent"), Some(trace.to_string().as_str()));
    /// ```
    #[must_use]
    pub fn with_trace(&self, trace: &TraceContext) -> Self {
        let names = |h: &Header<'_>| [TRACEPARENT, TRACESTATE].iter().any(|n| h.key_bytes() == n.as_bytes());
        let others: Headers = self.iter().filter(|h| !names(h)).collect();
        let headers = others.with(TRACEPARENT, trace.to_string());
        match trace.state() {
            Some(state) => headers.with(TRACESTATE, state),
            None => headers,
        }
    }
}

fn new_span_id() -> u64 {
    fastrand::u64(1..)
}

/// Parses hexadecimal digits, of which only lower-case ones are allowed.
fn hex(text: &str, at: std::ops::Range<usize>) -> Option<u128> {
    let digits = text.get(at)?;
    let lower = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(digits, 16).ok().filter(|_| lower)
}

/// Joins several `tracestate` headers to one list.
fn joined_values(headers: &Headers, name: &str) -> Option<String> {
    let all: Option<Vec<_>> = headers
        .iter()
        .filter(|h| h.key_bytes() == name.as_bytes())
        .map(|h| std::str::from_utf8(h.value().unwrap_or_default()).ok())
        .collect();
    all.filter(|all| !all.is_empty()).map(|all| all.join(","))
}

/// Returns whether a text is a valid `tracestate`: a list of at most 32 `key=value`, each key once;
/// empty members are allowed, an empty list is not.
fn is_tracestate(text: &str) -> bool {
    let members: Vec<_> = text.split(',').map(|m| m.trim_matches([' ', '\t'])).filter(|m| !m.is_empty()).collect();
    let mut keys = HashSet::new();
    let valid = |m: &str| m.split_once('=').is_some_and(|(k, v)| is_key(k) && is_value(v) && keys.insert(k.to_owned()));
    !members.is_empty() && members.len() <= MAX_TRACESTATE_MEMBERS && members.into_iter().all(valid)
}

/// Returns whether a text is a key: `vendor`, or `tenant@system`.
fn is_key(key: &str) -> bool {
    let lower = |c: u8| c.is_ascii_lowercase();
    let digit = |c: u8| c.is_ascii_digit();
    let rest = |s: &[u8]| s.iter().all(|c| lower(*c) || digit(*c) || b"_-*/".contains(c));
    let part = |s: &str, max: usize, may_begin_with_digit: bool| match s.as_bytes() {
        [first, more @ ..] => {
            (lower(*first) || may_begin_with_digit && digit(*first)) && more.len() < max && rest(more)
        }
        [] => false,
    };
    match key.split_once('@') {
        Some((tenant, system)) => part(tenant, 241, true) && part(system, 14, false),
        None => part(key, 256, false),
    }
}

/// Returns whether a text is a value: printable ASCII without `,` and `=`, up to 256 characters,
/// not ending in a space.
fn is_value(value: &str) -> bool {
    let allowed = |c: u8| matches!(c, b' '..=b'~') && c != b',' && c != b'=';
    (1..=256).contains(&value.len()) && value.bytes().all(allowed) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::parse(text, None)
    }

    #[test]
    fn a_traceparent_is_read_and_written() {
        let trace = parse(PARENT).unwrap();
        assert_eq!(trace.to_string(), PARENT);
        assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.span_id(), "b7ad6b7169203331");
        assert!(trace.is_sampled());
        assert!(!parse(&PARENT.replace("-01", "-00")).unwrap().is_sampled());
    }

    #[test]
    fn an_invalid_traceparent_is_rejected() {
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-"),
            &format!("{PARENT}-00"),
            &format!("{PARENT} "),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replacen("00-", "0-0", 1),
            &PARENT.replacen("00-", "+0-", 1),
            &PARENT.replace("b7ad6b7169203331", "0000000000000000"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("-01", "_01"),
            &PARENT.replace("0af7", "0ag7"),
            &PARENT.replace("0af7", "0äf"),
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_version_00() {
        let later = PARENT.replacen("00-", "cc-", 1);
        assert_eq!(parse(&later).unwrap().to_string(), PARENT);
        assert_eq!(parse(&format!("{later}-what-comes")).unwrap().to_string(), PARENT);
        assert_eq!(parse(&format!("{later}.what")), None);
        assert_eq!(parse(&later.replace("-01", "-ff")).unwrap().to_string(), PARENT, "only the flag that is known");
    }

    #[test]
    fn an_invalid_tracestate_is_dropped() {
        let state = |s: &str| TraceContext::parse(PARENT, Some(s)).unwrap().state;
        let long = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        for good in
            ["a=1", "a=1,b=2", "a=1, ,b= x", "0t@s=1", "a*/_-=~ !", &long(32), &format!("{}=1", "a".repeat(256))]
        {
            assert_eq!(state(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            " ",
            "a",
            "=1",
            "a=",
            "a=1,a=2",
            "A=1",
            "0=1",
            "a=b=c",
            "a@=1",
            "@b=1",
            "a@0=1",
            "a@b@c=1",
            "a=\u{7f}",
            "a=ä",
            &long(33),
            &format!("{}=1", "a".repeat(257)),
            &format!("a={}", "v".repeat(257)),
            &format!("a@{}=1", "s".repeat(15)),
        ] {
            assert_eq!(state(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn headers_have_the_trace_of_the_last_hop_or_of_the_event() {
        let event = Headers::new().with("ce_traceparent", PARENT).with("ce_tracestate", "a=1");
        let made = TraceContext::from_headers(&event).unwrap();
        assert_eq!((made.to_string().as_str(), made.state()), (PARENT, Some("a=1")));
        let hop = made.child();
        let sent = event.with("tracestate", "old=1").with_trace(&hop);
        assert_eq!(TraceContext::from_headers(&sent), Some(hop));
        assert_eq!(sent.len(), 4, "{sent:?}");
        let two = Headers::new().with("tracestate", "a=1").with("traceparent", PARENT).with("tracestate", "b=2");
        assert_eq!(TraceContext::from_headers(&two).unwrap().state(), Some("a=1,b=2"));
        assert_eq!(TraceContext::from_headers(&Headers::new().with("traceparent", [0xff])), None);
    }

    #[test]
    fn a_child_has_the_trace_of_its_parent() {
        let root = TraceContext::root(true);
        let child = root.child();
        assert_eq!((child.trace_id(), child.is_sampled()), (root.trace_id(), true));
        assert_ne!(child.span_id(), root.span_id());
        assert!(!TraceContext::root(false).is_sampled());
    }

    proptest! {
        #[test]
        fn headers_round_trip(
            trace_id in 1_u128..,
            span_id in 1_u64..,
            flags: u8,
            state in prop::option::of("[a-z][a-z0-9]{0,5}=[!-+]{1,5}"),
        ) {
            let trace = TraceContext { trace_id, span_id, flags, state };
            prop_assert_eq!(TraceContext::from_headers(&Headers::new().with_trace(&trace)), Some(trace));
        }

        #[test]
        fn version_00_is_read_strictly(text in "00-[0-9a-f]{31,32}-[0-9a-f]{15,17}-[0-9a-fA-F]{2}-?|.{0,60}") {
            if let Some(trace) = parse(&text) {
                if text.starts_with("00") {
                    prop_assert_eq!(trace.to_string(), text);
                }
            }
        }

        #[test]
        fn any_tracestate_is_parsed_without_panic(text in "([a-z0-9@=, ]|.){0,40}") {
            _ = is_tracestate(&text);
        }
    }
}
