//! Unknown `REDPANDA_*` variables, most of which are misspelt settings.

use std::collections::{BTreeSet, HashSet};

use super::names;
use crate::lock::Lock;

const PREFIX: &str = "REDPANDA_";

/// Logs unknown names, each once per process.
pub(super) fn warn<'a>(names_and_origins: impl Iterator<Item = (&'a str, &'a str)>) {
    static WARNED: Lock<BTreeSet<String>> = Lock::new(BTreeSet::new());
    for (name, origin) in names_and_origins.filter(|(name, _)| !names().any(|known| known == *name)) {
        if WARNED.lock().insert(name.to_owned()) {
            tracing::warn!("{}", text(name, origin));
        }
    }
}

fn text(name: &str, origin: &str) -> String {
    let hint = match nearest(name) {
        Some(known) => format!("did you mean {known}?"),
        None => ".env.example lists those that there are".to_owned(),
    };
    format!("{name} ({origin}) is no setting and has no effect: {hint}")
}

/// Returns whether Kubernetes sets this variable, for a service whose name begins with `redpanda`.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_port = ["TCP", "UDP", "SCTP"].iter().any(|p| {
        [format!("_{p}"), format!("_{p}_PROTO"), format!("_{p}_PORT"), format!("_{p}_ADDR")]
            .iter()
            .any(|end| name.contains("_PORT_") && name.ends_with(end.as_str()))
    });
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || of_port
        || (is_address && name.ends_with("_PORT"))
}

/// Returns the most similar setting: one that differs by few letters, or by some of its words.
fn nearest(name: &str) -> Option<&'static str> {
    let bare = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
    let wanted = name.strip_prefix(PREFIX)?;
    let by_letters = names().map(|known| (distance(wanted, bare(known)), known)).min()?;
    if by_letters.0 <= (wanted.len() / 5).max(1) {
        return Some(by_letters.1);
    }
    let words = |text: &str| text.split('_').map(str::to_owned).collect::<HashSet<_>>();
    let wanted = words(wanted);
    let by_words = names().filter_map(|known| {
        let of_known = words(bare(known));
        let fits = wanted.is_subset(&of_known) || of_known.is_subset(&wanted);
        fits.then(|| (wanted.symmetric_difference(&of_known).count(), known))
    });
    by_words.min().map(|(_, known)| known)
}

/// Returns the Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in (1..).zip(a.chars()) {
        let mut diagonal = std::mem::replace(&mut row[0], i);
        for (j, b) in (1..).zip(&b) {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j];
            row[j] = changed.min(diagonal + 1).min(row[j - 1] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_setting_is_suggested() {
        for (name, known) in [
            ("REDPANDA_BROKER", "REDPANDA_BROKERS"),
            ("REDPANDA_LINGER_MS", "REDPANDA_LINGER"),
            ("REDPANDA_GROUP_ID", "REDPANDA_CONSUMER_GROUP_ID"),
            ("REDPANDA_SASL_PASWORD", "REDPANDA_SASL_PASSWORD"),
            ("REDPANDA_COMPRESION", "REDPANDA_COMPRESSION"),
            ("REDPANDA_USERNAME", "REDPANDA_SASL_USERNAME"),
            ("REDPANDA_SCHEMA_REGISTRY_URLS", "REDPANDA_SCHEMA_REGISTRY_URL"),
        ] {
            assert_eq!(nearest(name), Some(known), "{name}");
        }
        for name in ["REDPANDA_LICENSE", "REDPANDA_BOOTSTRAP", "REDPANDA_"] {
            assert_eq!(nearest(name), None, "{name}");
        }
        assert_eq!(
            text("REDPANDA_BROKER", ".env"),
            "REDPANDA_BROKER (.env) is no setting and has no effect: did you mean REDPANDA_BROKERS?"
        );
    }

    #[test]
    fn distances() {
        for (a, b, n) in [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ab", 0), ("abc", "", 3)] {
            assert_eq!((distance(a, b), distance(b, a)), (n, n), "{a} {b}");
        }
    }

    #[test]
    fn service_links_of_kubernetes_are_no_settings() {
        for (name, value) in [
            ("REDPANDA_SERVICE_HOST", "10.0.0.1"),
            ("REDPANDA_SERVICE_PORT", "9092"),
            ("REDPANDA_SERVICE_PORT_KAFKA", "9092"),
            ("REDPANDA_PORT", "tcp://10.0.0.1:9092"),
            ("REDPANDA_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
            ("REDPANDA_CONSOLE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in [("REDPANDA_PORT", "9092"), ("REDPANDA_BROKERS", "tcp://a:1"), ("REDPANDA_HOST", "a")] {
            assert!(!is_service_link(name, value), "{name}");
        }
        assert!(!names().any(|known| is_service_link(known, "tcp://a:1")));
    }
}
