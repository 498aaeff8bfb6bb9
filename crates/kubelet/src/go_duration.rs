//! Durations in Go's notation (`1.234s`, `229ms`, `5m0s`): several of upstream's messages carry them, and
//! tests and people parse them (IMG-39, POD-14).

use std::time::Duration;

/// `duration` as Go's `time.Duration.String` prints it.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", fraction(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", fraction(nanos, 1_000_000));
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A duration in Go's notation, as upstream's configuration files have it; `None` for anything else, and for
/// negative ones.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        rest = &rest[end..];
        seconds += number * unit;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

/// `duration` cut to milliseconds, in Go's notation.
#[must_use]
pub fn format_millis(duration: Duration) -> String {
    format(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

/// `value / unit` without trailing zeros.
fn fraction(value: u128, unit: u128) -> String {
    let whole = value / unit;
    let rest = value % unit;
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn img_39_durations_are_in_go_notation() {
        for (millis, text) in [
            (1234, "1.234s"),
            (229, "229ms"),
            (62_500, "1m2.5s"),
            (0, "0s"),
            (300_000, "5m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(format(Duration::from_millis(millis)), text);
        }
        for (text, millis) in [("1m30s", 90_000), ("0s", 0), ("0", 0), ("1.5h", 5_400_000), ("250ms", 250)] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "10", "s", "1x", "-1s", "1m30", "1e400s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(format_millis(Duration::from_micros(229_900)), "229ms");
        assert_eq!(format(Duration::from_nanos(1_500)), "1.5µs");
    }
}
