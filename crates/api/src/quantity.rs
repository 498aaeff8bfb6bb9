//! `resource.Quantity`: amounts such as `250m`, `1Gi`, `1e3`, with Kubernetes' rounding, cap and canonical form.
//!
//! A value is kept in billionths (nothing smaller exists: finer amounts round away from zero) and capped at
//! 2^63-1, so `i128` holds every quantity exactly.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde_json::Value;

#[cfg(test)]
mod tests;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = (i64::MAX as i128) * NANO;

/// How a quantity was written, and so how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `1k`, `250m`.
    #[default]
    DecimalSi,
    /// `1Ki`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// Why a text is not a quantity; the texts are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not of the general shape.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// No digits.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// An unknown suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount. Equality and order compare amounts, not spellings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number, printed in the given format.
    pub fn new(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// A number of thousandths (CPU).
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self { nanos: (i128::from(bytes) * NANO).min(MAX), format: Format::BinarySi }
    }

    /// Parses a JSON value: a string, or (as upstream accepts) a bare number.
    pub fn from_value(value: &Value) -> Result<Self, ParseError> {
        match value {
            Value::String(s) => s.parse(),
            Value::Number(n) => n.to_string().parse(),
            _ => Err(ParseError::Format),
        }
    }

    /// Like [`Quantity::from_value`], zero for what is absent or malformed (validation refused it before).
    pub fn or_zero(value: Option<&Value>) -> Self {
        value.and_then(|v| Self::from_value(v).ok()).unwrap_or(Self::ZERO)
    }

    /// The amount in whole units, rounded away from zero as upstream's `Value()`.
    pub fn value(&self) -> i64 {
        ceil_div(self.nanos, NANO)
    }

    /// The amount in thousandths, rounded away from zero; saturates.
    pub fn milli_value(&self) -> i64 {
        ceil_div(self.nanos, NANO / 1000)
    }

    /// The amount in billionths.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// The format it was written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The larger of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }

    /// The amount divided by a divisor, rounded up (downward API, ENV-21). A zero divisor counts as 1.
    pub fn divided_by(&self, divisor: &Self) -> i64 {
        let d = if divisor.nanos == 0 { NANO } else { divisor.nanos };
        ceil_div(self.nanos, d)
    }

    /// As a JSON string in canonical form.
    pub fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

fn ceil_div(n: i128, d: i128) -> i64 {
    let q = n / d;
    let away = if n % d == 0 {
        0
    } else if (n < 0) == (d < 0) {
        1
    } else {
        -1
    };
    (q + away).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let number_len = unsigned.bytes().take_while(|c| c.is_ascii_digit()).count();
        let (whole, rest) = unsigned.split_at(number_len);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", rest),
        };
        if text.is_empty() || !suffix_shape(suffix) {
            return Err(ParseError::Format);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(if unsigned.starts_with('.') { ParseError::Numeric } else { ParseError::Format });
        }
        let (base, exponent, mut format) = parse_suffix(suffix).ok_or(ParseError::Suffix)?;
        let mut nanos = scaled(whole, fraction, base, exponent).min(MAX);
        if format == Format::BinarySi && nanos > 0 && nanos < NANO {
            format = Format::DecimalSi;
        }
        if text.starts_with('-') {
            nanos = -nanos;
        }
        Ok(Self { nanos, format })
    }
}

/// Whether a suffix is of the shape `[eEinumkKMGTP]*[-+]?[0-9]*`.
fn suffix_shape(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|c| c.is_ascii_digit())
}

fn parse_suffix(suffix: &str) -> Option<(i128, i32, Format)> {
    let binary = |n| Some((1024, n, Format::BinarySi));
    let decimal = |n| Some((10, n, Format::DecimalSi));
    match suffix {
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E'])?;
            let exponent: i8 = digits.parse().ok()?;
            Some((10, i32::from(exponent), Format::DecimalExponent))
        }
    }
}

/// `whole.fraction * base^exponent` in billionths, rounded up; saturates above the cap.
fn scaled(whole: &str, fraction: &str, base: i128, exponent: i32) -> i128 {
    let whole = whole.trim_start_matches('0');
    if whole.is_empty() && fraction.bytes().all(|c| c == b'0') {
        return 0;
    }
    if base == 10 && exponent < -9 {
        // Below billionths: shift digits right; whatever is lost rounds up.
        let shift = (-9 - exponent) as usize;
        let kept = whole.len().saturating_sub(shift);
        return scaled(&whole[..kept], "", 10, -9).saturating_add(1);
    }
    if whole.len() > 38 {
        return i128::MAX;
    }
    let scale = if base == 10 {
        base.checked_pow((9 + exponent) as u32)
    } else {
        base.checked_pow(exponent as u32).and_then(|s| s.checked_mul(NANO))
    };
    let Some(scale) = scale.filter(|s| *s < i128::MAX / 100) else { return i128::MAX };
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(i128::MAX) };
    let mut part = 0_i128;
    let mut lost = false;
    for digit in fraction.bytes().rev() {
        part += i128::from(digit - b'0') * scale;
        lost |= part % 10 != 0;
        part /= 10;
    }
    whole.saturating_mul(scale).saturating_add(part).saturating_add(i128::from(lost))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * NANO;
        let binary = self.format == Format::BinarySi && !small && self.is_integer();
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if binary {
            let (mut n, mut power) = (self.nanos / NANO, 0);
            while n % 1024 == 0 && power < 6 {
                n /= 1024;
                power += 1;
            }
            return write!(f, "{n}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut n, mut exponent) = (self.nanos, -9);
        while n % 1000 == 0 && exponent < 18 {
            n /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{n}") } else { write!(f, "{n}e{exponent}") };
        }
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        write!(f, "{n}{}", suffixes[((exponent + 9) / 3) as usize])
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
