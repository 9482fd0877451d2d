//! Words that brokers report about groups and transactions: newer ones than this version knows are
//! kept.

/// A text that a broker reports, as an enum that keeps unknown texts.
macro_rules! reported {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// One that this version does not know, as the broker names it.
            Other(String),
        }

        impl $name {
            /// Returns the broker's word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    text => Self::Other(text.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

pub(super) use reported;

reported! {
    /// State of a group, of whichever protocol.
    ///
    /// ```
    /// use ailurus::admin::GroupState;
    ///
    /// assert_eq!(GroupState::from("Stable"), GroupState::Stable);
    /// assert_eq!(GroupState::from("Napping").to_string(), "Napping");
    /// ```
    GroupState {
        /// All members have their assignment.
        Stable "Stable",
        /// No members, but committed offsets.
        Empty "Empty",
        /// The classic protocol waits for members to join.
        PreparingRebalance "PreparingRebalance",
        /// The classic protocol waits for the leader's assignment.
        CompletingRebalance "CompletingRebalance",
        /// The coordinator computes an assignment (KIP-848).
        Assigning "Assigning",
        /// Members move to the current assignment (KIP-848).
        Reconciling "Reconciling",
        /// The coordinator does not know the group, or is removing it.
        Dead "Dead",
    }
}

reported! {
    /// Protocol of a group.
    ///
    /// ```
    /// assert_eq!(ailurus::admin::GroupType::from("consumer"), ailurus::admin::GroupType::Consumer);
    /// ```
    GroupType {
        /// The classic protocol: a member computes the assignment.
        Classic "classic",
        /// KIP-848: the coordinator computes the assignment.
        Consumer "consumer",
    }
}
