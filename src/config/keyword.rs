//! Settings whose values are keywords.

/// A type with a keyword for each value that can be set by text.
pub(super) trait Keyword: Sized {
    const KEYWORDS: &'static [&'static str];

    fn from_keyword(word: &str) -> Option<Self>;

    /// Returns the list of keywords for error texts.
    fn allowed() -> String {
        let (last, others) = Self::KEYWORDS.split_last().unwrap_or((&"nothing", &[]));
        format!("allowed is {} or {last}", others.join(", "))
    }
}

/// Implements [`Keyword`] and `FromStr`. Aliases follow a `|`.
macro_rules! keywords {
    ($type:ident, $what:literal: $($word:literal $(| $alias:literal)* => $value:expr),+) => {
        impl crate::config::keyword::Keyword for $type {
            const KEYWORDS: &'static [&'static str] = &[$($word),+];

            fn from_keyword(word: &str) -> Option<Self> {
                match word {
                    $($word $(| $alias)* => Some($value),)+
                    _ => None,
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = crate::error::Error;

            fn from_str(s: &str) -> crate::error::Result<Self> {
                use crate::config::keyword::Keyword;
                Self::from_keyword(s).ok_or_else(|| {
                    let what = format!(concat!("{:?} is no ", $what, ": {}"), s, Self::allowed());
                    crate::error::Error::new(crate::error::ErrorKind::Config, what)
                })
            }
        }
    };
}

pub(super) use keywords;
