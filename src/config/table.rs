//! The table of settings: a row says all that there is to say about one.
//!
//! ```text
//! /// What it is.
//! field as setter by how: Type = default, "REDPANDA_VARIABLE" parser, in least..=most;
//! ```
//!
//! From it come the field, its default, the setter of [`ConfigBuilder`](super::ConfigBuilder), the variable and how its text is read
//! (a function of [`parse`](super::parse)), the check of its bounds, and the line on these in the field's documentation. `.env.example`
//! and the tables of `docs/settings.md` and the READMEs are compared with it by a test.
//!
//! - `as setter`, where the setter has another name than the field; errors call the setting by it, too.
//! - `by text`: the setter takes anything that becomes a `String`. `by hand`: it stands in `builder.rs`.
//! - Bounds may depend on other fields (`self.linger`). What can't be said so stands in `check.rs`.
//!
//! Fields behind the `+` have no variable of their own.

use std::time::Duration;

/// What is known of a setting at run time.
pub(super) struct Row {
    /// Its setter's name.
    pub(super) setter: &'static str,
    pub(super) variable: &'static str,
    /// Its default and its bounds, as the table has them, to compare documents with.
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
/// The most memory that may be set, in bytes: where addresses have 32 bits, less than the 512 MiB that a semaphore can count there.
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
        pub struct $Config:ident($self:ident) in $path:tt;
        $(
            $(#[$doc:meta])*
            $field:ident $(as $setter:ident)? $(by $how:ident)?: $type:ty = $default:expr,
            $variable:literal $parser:ident $(, in $bounds:expr)?;
        )*
        $(+ {$(
            $(#[$code_doc:meta])*
            $vis:vis $code:ident $(by $code_how:ident)?: $code_type:ty = $code_default:expr;
        )*})?
    ) => {
        $(#[$meta])*
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

            /// Sets what a variable is set for.
            pub(in crate::config) fn read(&mut $self, vars: &mut crate::config::env::Vars<'_>) {
                $(vars.set($variable, crate::config::parse::$parser, &mut $self.$field);)*
            }

            /// Notes what is out of its bounds.
            #[allow(unused_variables, reason = "a table may have none")]
            pub(in crate::config) fn check_bounds(&$self, check: &mut crate::config::check::Check<'_>) {
                $(settings!(@bounds check, settings!(@name $field $($setter)?), $self.$field, $parser $(, $bounds)?);)*
            }
        }

        impl crate::config::ConfigBuilder {
            $(settings! {
                @setter $($how)? [$($setter)? $field] $path $field: $type,
                concat!("[`", stringify!($Config), "::", stringify!($field), "`].")
            })*
            $($(settings! {
                @setter $($code_how)? [$code] $path $code: $code_type,
                concat!("[`", stringify!($Config), "::", stringify!($code), "`].")
            })*)?
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

    (@setter hand $($row:tt)*) => {};
    (@setter text [$name:ident $($_:ident)?] [$($path:tt)*] $field:ident: $type:ty, $doc:expr) => {
        #[doc = $doc]
        #[must_use]
        pub fn $name(mut self, value: impl Into<$type>) -> Self {
            self.$($path)*.$field = value.into();
            self
        }
    };
    (@setter [$name:ident $($_:ident)?] [$($path:tt)*] $field:ident: $type:ty, $doc:expr) => {
        #[doc = $doc]
        #[must_use]
        pub fn $name(mut self, value: $type) -> Self {
            self.$($path)*.$field = value;
            self
        }
    };
}

pub(super) use settings;

#[cfg(test)]
mod tests;
