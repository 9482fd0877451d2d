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
//! producer_settings!(ProducerBuilder [.config] by_field, all by config);
//! ```
//!
//! A row generates the field, its default, the variable and how its text is parsed (a function of
//! [`parse`](super::parse)), the check of its bounds, the line on these in the field's documentation, and a setter in every
//! type that `producer_settings!` is called for: at a path, named by the field or by `setter`, which is the name in
//! [`ConfigBuilder`](super::ConfigBuilder) where the field's name alone is ambiguous; `all by` names the setter that replaces
//! all of them. A test generates `.env.example` from the rows, and compares the tables of the documents with them.
//!
//! Errors name a setting by its type and field, `ProducerConfig::linger`; [`name_variables`](super::name_variables) adds the
//! variable for operators.
//!
//! Bounds may depend on other fields (`self.linger`). What can't be expressed as bounds is in `check.rs`.

use std::time::Duration;

/// A setting at run time.
#[cfg(feature = "env")]
pub(super) struct Row {
    /// Type and field, by which errors name it: `ProducerConfig::linger`.
    pub(super) path: &'static str,
    /// Name of the setter in [`ConfigBuilder`](super::ConfigBuilder).
    pub(super) setter: &'static str,
    pub(super) variable: &'static str,
    #[cfg(test)]
    pub(super) text: RowText,
}

/// Source text of a row, which the documents are generated from or compared with.
#[cfg(test)]
pub(super) struct RowText {
    pub(super) doc: &'static str,
    pub(super) default: &'static str,
    pub(super) parser: &'static str,
    pub(super) bounds: &'static str,
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

/// A [`Row`]: path, setter, variable, documentation, and source text of default, parser and bounds.
#[cfg(feature = "env")]
macro_rules! row {
    ($path:expr, $setter:expr, $variable:expr, $doc:expr, $default:expr, $parser:expr, $bounds:expr) => {
        crate::config::table::Row {
            path: $path,
            setter: $setter,
            variable: $variable,
            #[cfg(test)]
            text: crate::config::table::RowText { doc: $doc, default: $default, parser: $parser, bounds: $bounds },
        }
    };
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
            $(#[doc = $doc:literal])*
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
                $(#[doc = $doc])*
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
            #[cfg(feature = "env")]
            pub(in crate::config) const ROWS: &'static [crate::config::table::Row] = &[$(crate::config::table::row!(
                concat!(stringify!($Config), "::", stringify!($field)), settings!(@name $field $($setter)?), $variable,
                concat!($($doc),*), stringify!($default), stringify!($parser), concat!($(stringify!($bounds))?)
            ),)*];

            /// Sets the fields whose variables are set.
            #[cfg(feature = "env")]
            pub(in crate::config) fn read(&mut $self, vars: &mut crate::config::env::Vars<'_>) {
                $(vars.set($variable, crate::config::parse::$parser, &mut $self.$field);)*
            }

            /// Reports the fields that are out of their bounds.
            #[allow(unused_variables, reason = "a table may have none")]
            pub(in crate::config) fn check_bounds(&$self, check: &mut crate::config::check::Check<'_>) {
                $(settings!(
                    @bounds check, concat!(stringify!($Config), "::", stringify!($field)), $self.$field, $parser $(, $bounds)?
                );)*
            }
        }
    };

    (@export ($d:tt) $setters:ident $Config:ident $rows:tt) => {
        macro_rules! $setters {
            ($d Builder:ident $d path:tt $d naming:ident $d(, all by $d all:ident)?) => {
                crate::config::table::settings! { @setters $d Builder $d path $d naming $Config $rows }
                $d(crate::config::table::settings! { @all $d all $d Builder $d path $Config })?
            };
        }
        pub(crate) use $setters;
    };

    (@all $name:ident $Builder:ident [$($path:tt)*] $Config:ident) => {
        impl $Builder {
            #[doc = concat!("Replaces all settings of [`", stringify!($Config), "`](crate::", stringify!($Config), ").")]
            #[must_use]
            pub fn $name(mut self, config: crate::config::$Config) -> Self {
                self $($path)* = config;
                self
            }
        }
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

    (@bounds $check:ident, $path:expr, $value:expr, $parser:ident) => {};
    (@bounds $check:ident, $path:expr, $value:expr, bytes, $bounds:expr) => {
        $check.bounds($path, $value, $bounds, " bytes")
    };
    (@bounds $check:ident, $path:expr, $value:expr, $parser:ident, $bounds:expr) => {
        $check.bounds($path, $value, $bounds, "")
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
    (@method $name:ident $field:ident $path:tt delays $type:ty, $doc:expr) => {
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

#[cfg(feature = "env")]
pub(in crate::config) use row;
pub(crate) use settings;

#[cfg(test)]
mod tests;
