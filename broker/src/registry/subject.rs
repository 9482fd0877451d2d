//! Subjects and the contexts that hold them: `:.context:subject`, or `subject` in the default context.

use std::fmt;

/// Longest accepted name of a subject, in bytes.
const MAX_SUBJECT_BYTES: usize = 64 << 10;
/// Names that Confluent's registry has reserved.
const RESERVED: [&str; 2] = ["__GLOBAL", "__EMPTY"];

/// A subject in its context. With an empty name it is the whole context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    /// Context without its leading dot; empty for the default one.
    pub context: String,
    pub name: String,
}

impl Subject {
    /// The default context, which holds the global settings.
    pub fn global() -> Self {
        Self { context: String::new(), name: String::new() }
    }

    /// Parses a subject, qualified or not.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix(":.") {
            Some(qualified) => {
                let (context, name) = qualified.split_once(':').unwrap_or((qualified, ""));
                Self { context: context.to_owned(), name: name.to_owned() }
            }
            None => Self { context: String::new(), name: text.to_owned() },
        }
    }

    /// Returns the subject as its context's name would have it if it is not qualified itself.
    pub fn parse_in(context: &str, text: &str) -> Self {
        let subject = Self::parse(text);
        if text.starts_with(":.") { subject } else { Self { context: context.to_owned(), ..subject } }
    }

    /// Returns the context, as a subject without a name.
    pub fn whole_context(&self) -> Self {
        Self { context: self.context.clone(), name: String::new() }
    }

    pub fn is_whole_context(&self) -> bool {
        self.name.is_empty()
    }

    /// Returns whether a schema may be registered under it.
    pub fn is_valid(&self) -> bool {
        let plain = |text: &str| !text.chars().any(char::is_control);
        !self.name.is_empty()
            && self.name.len() <= MAX_SUBJECT_BYTES
            && plain(&self.name)
            && plain(&self.context)
            && !RESERVED.contains(&self.name.as_str())
    }

    /// Returns the name of the context as the API lists it: `.` or `.context`.
    pub fn context_name(&self) -> String {
        format!(".{}", self.context)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.context.is_empty() { f.write_str(&self.name) } else { write!(f, ":.{}:{}", self.context, self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualified_subjects_name_their_context() {
        for (text, context, name) in [
            ("orders-value", "", "orders-value"),
            (":.staging:orders-value", "staging", "orders-value"),
            (":.:orders-value", "", "orders-value"),
            (":.staging:", "staging", ""),
            (":.staging", "staging", ""),
            (":.staging:a:b", "staging", "a:b"),
            ("a:b", "", "a:b"),
        ] {
            let subject = Subject::parse(text);
            assert_eq!((subject.context.as_str(), subject.name.as_str()), (context, name), "{text}");
        }
        assert_eq!(Subject::parse(":.staging:orders").to_string(), ":.staging:orders");
        assert_eq!(Subject::parse(":.:orders").to_string(), "orders");
    }

    #[test]
    fn names_that_no_client_can_mean_are_invalid() {
        for (text, is_valid) in [("a", true), ("a b/c", true), ("", false), ("a\nb", false), ("__GLOBAL", false)] {
            assert_eq!(Subject::parse(text).is_valid(), is_valid, "{text:?}");
        }
    }
}
