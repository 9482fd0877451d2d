//! The table of settings: one row holds everything about a setting.
//!
//! ```text
//! settings! {
//!     pub struct ProducerConfig(self) {
//!         /// Documentation.
//!         field as setter: Type = default, "REDPANDA_VARIABLE" parser, in least..=most;
//!     }
//!     and { /// Fields without a variable, and without a setter.
//!         pub field: Type = default; }
//!     setters: producer_settings;
//! }
//! producer_settings!(ProducerConfig [] by_field);
//! producer_settings!(ConfigBuilder [.config.producer] by_setter);
//! ```
//!
//! A row generates the field, its default, the variable and how its text is parsed (a function of
//! [`parse`](super::parse)), the check of its bounds, the line on these in the field's documentation, and a setter in every
//! type that `producer_settings!` is called for: at a path, named by the field or by `setter`, which is the name in
//! [`ConfigBuilder`](super::ConfigBuilder) and in errors where the field's name alone is ambiguous. A test compares
//! `.env.example` and the tables of the READMEs with the rows.
//!
//! Bounds may depend on other fields (`self.linger`). What can't be expressed as bounds is in `check.rs`.

use std::time::Duration;

/// A setting at run time.
pub(super) struct Row {
    /// Name of the setter in [`ConfigBuilder`](super::ConfigBuilder), and in errors.
    pub(super) setter: &'static str,
    pub(super) variable: &'static str,
    /// Source text of the default and the bounds, compared with the documents.
    #[cfg_attr(not(test), expect(dead_code))]
    pub(super) default: &'static str,
    #[cfg_attr(not(test), expect(dead_code))]
    pub(super) bounds: &'static str,
}

impl Row {
    pub(super) const fn new(setter: &'static str, variable: &'static str, default: &'static str) -> Self {
        Self { setter, variable, default, bounds: "" }
    }
}

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
/// Maximum of a memory setting, in bytes. A semaphore counts up to 512 MiB where addresses have 32 bits.
pub(super) const MEMORY: usize = if usize::BITS > 32 { 64 << 30 } else { 256 << 20 };

pub(super) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) const fn minutes(n: u64) -> Duration {
    secs(60 * n)
}

pub(super) const fn hours(n: u64) -> Duration {
    minutes(60 * n)
}

pub(super) const fn days(n: u64) -> Duration {
    hours(24 * n)
}

macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $Config:ident($self:ident) $rows:tt
        $(and $code:tt)?
        setters: $setters:ident;
    ) => {
        settings! { @table [$(#[$meta])*] $Config $self $rows $($code)? }
        settings! { @export ($) $setters $Config $rows }
    };

    (
        @table [$($meta:tt)*] $Config:ident $self:ident {$(
            $(#[$doc:meta])*
            $field:ident $(as $setter:ident)?: $type:ty = $default:expr,
            $variable:literal $parser:ident $(, in $bounds:expr)?;
        )*}
        $({$(
            $(#[$code_doc:meta])*
            $vis:vis $code:ident: $code_type:ty = $code_default:expr;
        )*})?
    ) => {
        $($meta)*
        pub struct $Config {
            $(
                $(#[$doc])*
                #[doc = ""]
                #[doc = concat!("Default `", stringify!($default), "`; ")]
                $(#[doc = concat!("allowed `", stringify!($bounds), "`; ")])?
                #[doc = concat!("variable `", $variable, "`.")]
                pub $field: $type,
            )*
            $($($(#[$code_doc])* $vis $code: $code_type,)*)?
        }

        impl Default for $Config {
            fn default() -> Self {
                Self { $($field: $default,)* $($($code: $code_default,)*)? }
            }
        }

        impl $Config {
            pub(in crate::config) const ROWS: &'static [crate::config::table::Row] = &[$(crate::config::table::Row {
                setter: settings!(@name $field $($setter)?),
                variable: $variable,
                default: stringify!($default),
                bounds: concat!($(stringify!($bounds))?),
            },)*];

            /// Sets the fields whose variables are set.
            pub(in crate::config) fn read(&mut $self, vars: &mut crate::config::env::Vars<'_>) {
                $(vars.set($variable, crate::config::parse::$parser, &mut $self.$field);)*
            }

            /// Reports the fields that are out of their bounds.
            #[allow(unused_variables, reason = "a table may have none")]
            pub(in crate::config) fn check_bounds(&$self, check: &mut crate::config::check::Check<'_>) {
                $(settings!(@bounds check, settings!(@name $field $($setter)?), $self.$field, $parser $(, $bounds)?);)*
            }
        }
    };

    (@export ($d:tt) $setters:ident $Config:ident $rows:tt) => {
        macro_rules! $setters {
            ($d Builder:ident [$d($d path:tt)*] $d naming:ident) => {
                crate::config::table::settings! { @setters $d Builder [$d($d path)*] $d naming $Config $rows }
            };
        }
        pub(crate) use $setters;
    };

    (@setters $Builder:ident $path:tt $naming:ident $Config:ident {$(
        $(#[$doc:meta])*
        $field:ident $(as $setter:ident)?: $type:ty = $default:expr,
        $variable:literal $parser:ident $(, in $bounds:expr)?;
    )*}) => {
        impl $Builder {
            $(crate::config::table::settings! {
                @setter $naming $field [$($setter)?] $path $parser $type,
                concat!("Sets [`", stringify!($field), "`](field@crate::", stringify!($Config), "::", stringify!($field), ").")
            })*
        }
    };

    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $setter:ident) => { stringify!($setter) };

    (@bounds $check:ident, $setter:expr, $value:expr, $parser:ident) => {};
    (@bounds $check:ident, $setter:expr, $value:expr, bytes, $bounds:expr) => {
        $check.bounds($setter, $value, $bounds, " bytes")
    };
    (@bounds $check:ident, $setter:expr, $value:expr, $parser:ident, $bounds:expr) => {
        $check.bounds($setter, $value, $bounds, "")
    };

    // The name of a setter, then its argument by the parser, which says more than the type.
    (@setter by_setter $field:ident [$setter:ident] $($rest:tt)*) => {
        crate::config::table::settings! { @method $setter $field $($rest)* }
    };
    (@setter $naming:ident $field:ident [$($_:ident)?] $($rest:tt)*) => {
        crate::config::table::settings! { @method $field $field $($rest)* }
    };
    (@method $name:ident $field:ident $path:tt brokers $($rest:tt)*) => {};
    (@method $name:ident $field:ident [$($path:tt)*] topic_codecs $type:ty, $doc:expr) => {
        #[doc = $doc]
        #[doc = "Adds one topic to it."]
        #[must_use]
        pub fn $name(mut self, topic: impl Into<String>, compression: Compression) -> Self {
            self $($path)*.$field.insert(topic.into(), compression);
            self
        }
    };
    (@method $name:ident $field:ident $path:tt text $type:ty, $doc:expr) => {
        crate::config::table::settings! { @into $name $field $path [impl Into<$type>] std::convert::identity, $doc }
    };
    (@method $name:ident $field:ident $path:tt limit $type:ty, $doc:expr) => {
        crate::config::table::settings! { @into $name $field $path [impl Into<$type>] std::convert::identity, $doc }
    };
    (@method $name:ident $field:ident $path:tt retention $type:ty, $doc:expr) => {
        crate::config::table::settings! { @into $name $field $path [impl Into<$type>] std::convert::identity, $doc }
    };
    (@method $name:ident $field:ident $path:tt assignors $type:ty, $doc:expr) => {
        crate::config::table::settings! { @into $name $field $path [impl Into<$type>] std::convert::identity, $doc }
    };
    (@method $name:ident $field:ident $path:tt name $type:ty, $doc:expr) => {
        crate::config::table::settings! { @into $name $field $path [impl Into<String>] Some, $doc }
    };
    (@method $name:ident $field:ident $path:tt file $type:ty, $doc:expr) => {
        crate::config::table::settings! { @into $name $field $path [impl Into<std::path::PathBuf>] Some, $doc }
    };
    (@method $name:ident $field:ident [$($path:tt)*] $parser:ident $type:ty, $doc:expr) => {
        #[doc = $doc]
        #[must_use]
        pub fn $name(mut self, value: $type) -> Self {
            self $($path)*.$field = value;
            self
        }
    };
    (@into $name:ident $field:ident [$($path:tt)*] [$($argument:tt)*] $wrap:expr, $doc:expr) => {
        #[doc = $doc]
        #[must_use]
        pub fn $name(mut self, value: $($argument)*) -> Self {
            self $($path)*.$field = $wrap(value.into());
            self
        }
    };
}

pub(crate) use settings;

#[cfg(test)]
mod tests;
