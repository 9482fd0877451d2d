//! `SUBJECT[:VERSION]` on the command line.

use std::fmt;
use std::str::FromStr;

use ailurus_schema::Version;

/// A subject, and perhaps one of its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectVersion {
    pub subject: String,
    pub version: Option<Version>,
}

impl FromStr for SubjectVersion {
    type Err = String;

    /// A subject may have colons, as one in a context does: the last one is before a version if a number or `latest` follows.
    fn from_str(text: &str) -> Result<Self, String> {
        let (subject, version) = match text.rsplit_once(':') {
            Some((subject, tail)) if !subject.is_empty() => match tail.parse::<Version>() {
                Ok(version) => (subject, Some(version)),
                // A number that is no version is a mistake, and no subject.
                Err(error) if tail.parse::<i64>().is_ok() => return Err(error.to_string()),
                Err(_) => (text, None),
            },
            _ => (text, None),
        };
        if subject.is_empty() {
            return Err("the subject is missing".to_owned());
        }
        Ok(Self { subject: subject.to_owned(), version })
    }
}

impl fmt::Display for SubjectVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "version {version} of {}", self.subject),
            None => f.write_str(&self.subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_behind_the_last_colon() {
        let of = |text: &str| text.parse::<SubjectVersion>().map(|s| (s.subject, s.version));
        assert_eq!(of("orders-value"), Ok(("orders-value".into(), None)));
        assert_eq!(of("orders-value:3"), Ok(("orders-value".into(), Some(Version::Number(3)))));
        assert_eq!(of("orders:latest"), Ok(("orders".into(), Some(Version::Latest))));
        assert_eq!(of(":.staging:orders"), Ok((":.staging:orders".into(), None)));
        assert_eq!(of(":.staging:orders:2"), Ok((":.staging:orders".into(), Some(Version::Number(2)))));
        assert_eq!(of("a:b"), Ok(("a:b".into(), None)));
        assert!(of("").is_err());
        assert!(of("orders:0").is_err_and(|e| e.contains("from 1")));
    }
}
