//! Terms of access control lists, with their codes in the protocol.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// An enum of terms with the protocol's codes; an unknown code is kept.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $what:literal { $($(#[$its:meta])* $variant:ident $code:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$its])* $variant,)*
            /// A code that this version does not know.
            Other(i8),
        }

        impl $name {
            pub(super) fn code(self) -> i8 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Other(code) => code,
                }
            }

            pub(super) fn from_code(code: i8) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    code => Self::Other(code),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($word),)*
                    Self::Other(code) => write!(f, "{code}"),
                }
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(word: &str) -> Result<Self> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => {
                        let allowed = [$($word),*].join(", ");
                        let what = format!(concat!($what, " is {:?}: allowed is {}"), word, allowed);
                        Err(Error::new(ErrorKind::Config, what))
                    }
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}

words! {
    /// Type of a resource.
    ///
    /// ```
    /// use ailurus::admin::ResourceKind;
    ///
    /// assert_eq!("transactional-id".parse::<ResourceKind>()?, ResourceKind::TransactionalId);
    /// # Ok::<_, ailurus::Error>(())
    /// ```
    ResourceKind: "the kind of a resource" {
        /// A topic.
        Topic 2 "topic",
        /// A consumer group.
        Group 3 "group",
        /// The cluster, whose name is `kafka-cluster`.
        Cluster 4 "cluster",
        /// A transactional id.
        TransactionalId 5 "transactional-id",
        /// A delegation token.
        DelegationToken 6 "delegation-token",
        /// A user, of delegation tokens.
        User 7 "user",
    }
}

words! {
    /// Pattern type of a resource name.
    ///
    /// ```
    /// assert_eq!(ailurus::admin::PatternKind::Prefixed.to_string(), "prefixed");
    /// ```
    PatternKind: "the kind of a pattern" {
        /// Exactly that name; `*` means all.
        Literal 3 "literal",
        /// All names that begin with it.
        Prefixed 4 "prefixed",
    }
}

words! {
    /// Operation on a resource.
    ///
    /// ```
    /// use ailurus::admin::AclOperation;
    ///
    /// let e = "fly".parse::<AclOperation>().unwrap_err();
    /// assert!(e.to_string().contains("allowed is all, read, write"));
    /// ```
    AclOperation: "an operation" {
        /// Every operation.
        All 2 "all",
        /// Fetch from a topic; join a group and commit to it.
        Read 3 "read",
        /// Produce to a topic.
        Write 4 "write",
        /// Create topics.
        Create 5 "create",
        /// Delete topics, groups, records.
        Delete 6 "delete",
        /// Alter topics, access control lists.
        Alter 7 "alter",
        /// Describe a resource.
        Describe 8 "describe",
        /// Requests between brokers.
        ClusterAction 9 "cluster-action",
        /// Describe configurations.
        DescribeConfigs 10 "describe-configs",
        /// Alter configurations.
        AlterConfigs 11 "alter-configs",
        /// Produce idempotently; required by brokers before 2.8.
        IdempotentWrite 12 "idempotent-write",
        /// Create delegation tokens of other users.
        CreateTokens 13 "create-tokens",
        /// Describe delegation tokens of other users.
        DescribeTokens 14 "describe-tokens",
    }
}

words! {
    /// Allows or denies; a denial takes precedence.
    ///
    /// ```
    /// assert_eq!(ailurus::admin::AclPermission::Deny.to_string(), "deny");
    /// ```
    AclPermission: "a permission" {
        /// Denied.
        Deny 2 "deny",
        /// Allowed.
        Allow 3 "allow",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn words_and_numbers_agree_and_an_unknown_number_is_kept() {
        for code in 2..=14 {
            let operation = AclOperation::from_code(code);
            assert_eq!((operation.code(), operation.to_string().parse::<AclOperation>().unwrap()), (code, operation));
        }
        assert_eq!(AclOperation::from_code(77), AclOperation::Other(77));
        assert_eq!((AclOperation::Other(77).code(), AclOperation::Other(77).to_string()), (77, "77".into()));
        assert_eq!(serde_json::to_string(&ResourceKind::DelegationToken).unwrap(), r#""delegation-token""#);
        let e = "Topic".parse::<ResourceKind>().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.to_string().contains("\"Topic\": allowed is topic, group, cluster"), "{e}");
    }
}
