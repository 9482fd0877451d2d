//! Amounts of money without float error.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of money in whole cents.
///
/// In JSON it is a number of the main unit, as JavaScript writes it (`19.99`, `19.9`, `20`), and exact: up to
/// [`Money::MAX`] every amount is read back as the same cents. Decimal strings (`"19.99"`) are read too. Sums of
/// JavaScript that differ a little from the cent (`59.970000000000006`) are read as that cent; an amount with fractions of a
/// cent, or beyond `MAX`, is refused.
///
/// ```
/// use ailurus_shop::Money;
///
/// let price: Money = serde_json::from_str("19.99")?;
/// assert_eq!(price, Money::cents(1999));
/// assert_eq!(serde_json::to_string(&price)?, "19.99");
/// assert_eq!("0.05".parse(), Ok(Money::cents(5)));
/// assert_eq!(Money::cents(-150).to_string(), "-1.50");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Money(i64);

impl Money {
    /// The largest amount (and, negated, the smallest) that JSON numbers carry exactly: fifteen digits.
    pub const MAX: Money = Money(999_999_999_999_999);

    /// Creates an amount of so many cents.
    pub const fn cents(cents: i64) -> Self {
        Self(cents)
    }

    /// Returns the number of cents.
    pub const fn as_cents(self) -> i64 {
        self.0
    }

    fn bounded(cents: i64) -> Result<Self, NotMoney> {
        if cents.unsigned_abs() <= Self::MAX.0.unsigned_abs() { Ok(Self(cents)) } else { Err(NotMoney::TooLarge) }
    }

    fn from_number(amount: f64) -> Result<Self, NotMoney> {
        let scaled = amount * 100.0;
        if !scaled.is_finite() || scaled.abs() > Self::MAX.0 as f64 {
            return Err(NotMoney::TooLarge);
        }
        let cents = scaled.round();
        // The error of sums and products of a few floats, and no more.
        if (scaled - cents).abs() > f64::max(1e-6, scaled.abs() * 4.0 * f64::EPSILON) {
            return Err(NotMoney::FractionOfCent);
        }
        Self::bounded(cents as i64)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", cents / 100, cents % 100)
    }
}

/// Reason why a text or number is not an amount of money.
///
/// ```
/// use ailurus_shop::{Money, NotMoney};
///
/// assert_eq!("0.999".parse::<Money>(), Err(NotMoney::FractionOfCent));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotMoney {
    /// It is not a decimal number.
    NotANumber,
    /// It has more than two decimals.
    FractionOfCent,
    /// It is beyond [`Money::MAX`].
    TooLarge,
}

impl fmt::Display for NotMoney {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber => f.write_str("an amount of money is a decimal number such as 19.99"),
            Self::FractionOfCent => f.write_str("an amount of money has at most two decimals"),
            Self::TooLarge => write!(f, "an amount of money is at most {}", Money::MAX),
        }
    }
}

impl std::error::Error for NotMoney {}

impl FromStr for Money {
    type Err = NotMoney;

    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (units, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(units) || !all_digits(decimals) {
            return Err(NotMoney::NotANumber);
        }
        let decimals = decimals.trim_end_matches('0');
        if decimals.len() > 2 {
            return Err(NotMoney::FractionOfCent);
        }
        let cents: i64 = format!("{units}{decimals:0<2}").parse().map_err(|_| NotMoney::TooLarge)?;
        Self::bounded(if negative { -cents } else { cents })
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::bounded(self.0).map_err(serde::ser::Error::custom)?;
        if self.0 % 100 == 0 {
            serializer.serialize_i64(self.0 / 100)
        } else {
            // Up to fifteen digits the shortest text of the nearest float is the decimal itself.
            serializer.serialize_f64(self.0 as f64 / 100.0)
        }
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;

        impl Visitor<'_> for Amount {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of money such as 19.99 or \"19.99\"")
            }
            fn visit_i64<E: de::Error>(self, units: i64) -> Result<Money, E> {
                units.checked_mul(100).ok_or(NotMoney::TooLarge).and_then(Money::bounded).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, units: u64) -> Result<Money, E> {
                i64::try_from(units).map_err(|_| E::custom(NotMoney::TooLarge)).and_then(|units| self.visit_i64(units))
            }
            fn visit_f64<E: de::Error>(self, amount: f64) -> Result<Money, E> {
                Money::from_number(amount).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Amount)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Money, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_and_strings_are_read() {
        for (json, cents) in [
            ("19.99", 1999),
            ("\"19.99\"", 1999),
            ("20", 2000),
            ("20.0", 2000),
            ("\"20\"", 2000),
            ("0.1", 10),
            ("\"0.100\"", 10),
            ("-0.05", -5),
            ("\"-0.05\"", -5),
            ("1e2", 10_000),
            // 19.99 * 3 and 0.1 + 0.2 as JavaScript has them
            ("59.97", 5997),
            ("59.970000000000006", 5997),
            ("0.30000000000000004", 30),
            ("9999999999999.99", 999_999_999_999_999),
        ] {
            assert_eq!(read(json), Ok(Money::cents(cents)), "{json}");
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        for (json, why) in [
            ("1.999", "at most two decimals"),
            ("\"1.999\"", "at most two decimals"),
            ("10000000000000.00", "at most 9999999999999.99"),
            ("\"10000000000000\"", "at most 9999999999999.99"),
            ("18446744073709551615", "at most 9999999999999.99"),
            ("1e300", "at most 9999999999999.99"),
            ("\"\"", "decimal number"),
            ("\"1,5\"", "decimal number"),
            ("\"1.\"", "decimal number"),
            ("\"--1\"", "decimal number"),
            ("\"NaN\"", "decimal number"),
            ("null", "expected an amount of money"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
        assert!(serde_json::to_string(&Money::cents(i64::MIN)).is_err());
    }

    #[test]
    fn it_is_written_as_javascript_writes_it() {
        for (cents, json) in [(1999, "19.99"), (1990, "19.9"), (2000, "20"), (0, "0"), (5, "0.05"), (-5, "-0.05")] {
            assert_eq!(serde_json::to_string(&Money::cents(cents)).unwrap(), json);
        }
        assert_eq!(serde_json::to_string(&Money::MAX).unwrap(), "9999999999999.99");
    }

    proptest! {
        #[test]
        fn every_amount_is_read_back_exactly(cents in -Money::MAX.0..=Money::MAX.0) {
            let money = Money::cents(cents);
            let json = serde_json::to_string(&money).unwrap();
            prop_assert_eq!(read(&json), Ok(money));
            prop_assert_eq!(serde_json::from_value(serde_json::to_value(money).unwrap()).ok(), Some(money));
            prop_assert_eq!(money.to_string().parse(), Ok(money));
            // The text is the decimal, not a float near it.
            prop_assert_eq!(json.parse(), Ok(money));
        }
    }
}
