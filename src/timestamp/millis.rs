//! Serde of points in time and spans as numbers of milliseconds, for `#[serde(with = …)]`.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timestamp;

/// A time that is written as a number of milliseconds.
pub(crate) trait Millis: Copy {
    /// Type of the number.
    type Number: Serialize + DeserializeOwned;

    fn to_number(self) -> Self::Number;
    fn from_number(number: Self::Number) -> Self;
}

impl Millis for Timestamp {
    type Number = i64;

    fn to_number(self) -> i64 {
        self.as_millis()
    }

    fn from_number(number: i64) -> Self {
        Self::from_millis(number)
    }
}

impl Millis for Duration {
    type Number = u64;

    fn to_number(self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }

    fn from_number(number: u64) -> Self {
        Self::from_millis(number)
    }
}

impl<T: Millis> Millis for Option<T> {
    type Number = Option<T::Number>;

    fn to_number(self) -> Self::Number {
        self.map(T::to_number)
    }

    fn from_number(number: Self::Number) -> Self {
        number.map(T::from_number)
    }
}

pub(crate) fn serialize<T: Millis, S: Serializer>(time: &T, serializer: S) -> Result<S::Ok, S::Error> {
    time.to_number().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Millis, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Number::deserialize(deserializer).map(T::from_number)
}

/// With three decimals, for spans that are shorter than a millisecond.
pub(crate) mod fractional {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        span.map(|span| (span.as_secs_f64() * 1e6).round() / 1e3).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let millis = Option::<f64>::deserialize(deserializer)?;
        let span = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).map_err(serde::de::Error::custom);
        millis.map(span).transpose()
    }
}
