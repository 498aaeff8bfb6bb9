//! Resource quantities as numbers: the few conversions that the kubelet needs, exact and rounded up as
//! upstream's `Quantity.Value` and `MilliValue`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// A quantity in billionths; `None` when it cannot be read.
#[must_use]
pub fn nanos(text: &str) -> Option<i128> {
    text.trim().parse::<sampan_api::quantity::Quantity>().ok().map(|quantity| quantity.nanos())
}

/// The quantity in whole units, rounded up.
#[must_use]
pub fn value(text: &str) -> Option<i64> {
    i64::try_from(div_ceil(nanos(text)?, NANO)).ok()
}

/// The quantity in thousandths, rounded up.
#[must_use]
pub fn milli_value(text: &str) -> Option<i64> {
    i64::try_from(div_ceil(nanos(text)?, NANO / 1_000)).ok()
}

/// `quantity / divisor`, rounded up (ENV-21). A missing or zero divisor is 1.
#[must_use]
pub fn divide(quantity: &str, divisor: Option<&str>) -> Option<i64> {
    let divisor = divisor.and_then(nanos).filter(|divisor| *divisor != 0).unwrap_or(NANO);
    i64::try_from(div_ceil(nanos(quantity)?, divisor)).ok()
}

/// The value of `resource` in a resource list, in whole units.
#[must_use]
pub fn listed(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<i64> {
    value(&list?.get(resource)?.0)
}

/// The value of `resource` in a resource list, in thousandths.
#[must_use]
pub fn listed_milli(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<i64> {
    milli_value(&list?.get(resource)?.0)
}

fn div_ceil(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by > 0 { quotient + 1 } else { quotient }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_21_values_are_rounded_up() {
        for (quantity, divisor, expected) in [
            ("250m", None, 1),
            ("1250m", Some("1"), 2),
            ("1250m", Some("1m"), 1250),
            ("64Mi", None, 67_108_864),
            ("64Mi", Some("1Mi"), 64),
            ("1.5Gi", Some("1Mi"), 1536),
            ("1e3", None, 1000),
            ("0.5", Some("0"), 1),
            ("100n", None, 1),
        ] {
            assert_eq!(divide(quantity, divisor), Some(expected), "{quantity} / {divisor:?}");
        }
        assert_eq!(nanos("abc"), None);
        assert_eq!(nanos(""), None);
        assert_eq!(milli_value("0.1"), Some(100));
    }
}
