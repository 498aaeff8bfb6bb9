#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    text.parse::<Quantity>().unwrap().to_string()
}

#[test]
fn canonical_forms() {
    let cases = [
        ("0", "0"),
        ("1.5", "1500m"),
        ("0.5Gi", "512Mi"),
        ("1024Ki", "1Mi"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("123456789", "123456789"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1000000e-3", "1e3"),
        ("100e3", "100e3"),
        ("0.1n", "1n"),
        ("-1.5", "-1500m"),
        ("+1", "1"),
        ("1023Ki", "1023Ki"),
        ("0.5Ki", "512"),
        ("0.0009765625Ki", "1"),
        ("1.", "1"),
        (".5", "500m"),
        ("9223372036854775808", "9223372036854775807"),
        ("1e100", "9223372036854775807"),
        ("1e-12", "1e-9"),
        ("64Mi", "64Mi"),
        ("1E", "1E"),
        ("128974848", "128974848"),
    ];
    for (text, form) in cases {
        assert_eq!(canonical(text), form, "{text}");
    }
}

#[test]
fn malformed_texts() {
    for text in ["", "a", "1x", "1 ", " 1", "1.2.3", "--1", "1Kib", "e3"] {
        assert!(text.parse::<Quantity>().is_err(), "{text}");
    }
    assert_eq!("1mm".parse::<Quantity>(), Err(ParseError::Suffix));
    assert_eq!(".".parse::<Quantity>(), Err(ParseError::Numeric));
}

#[test]
fn env_21_values_round_up() {
    let q: Quantity = "250m".parse().unwrap();
    assert_eq!((q.value(), q.milli_value()), (1, 250));
    assert_eq!("1250m".parse::<Quantity>().unwrap().divided_by(&"1".parse().unwrap()), 2);
    assert_eq!("64Mi".parse::<Quantity>().unwrap().divided_by(&"1Mi".parse().unwrap()), 64);
}

proptest! {
    #[test]
    fn canonical_form_keeps_the_amount(n in any::<i64>(), suffix in prop::sample::select(
        vec!["n", "u", "m", "", "k", "M", "Ki", "Mi", "Gi", "e3", "e-3"])) {
        let text = format!("{n}{suffix}");
        let q: Quantity = text.parse().unwrap();
        let again: Quantity = q.to_string().parse().unwrap();
        prop_assert_eq!(q, again);
        prop_assert_eq!(q.to_string(), again.to_string());
    }

    #[test]
    fn any_text_parses_or_fails_without_panic(text in "[-+0-9.eEinumkKMGTP]{0,60}") {
        if let Ok(q) = text.parse::<Quantity>() {
            let _ = (q.to_string(), q.value(), q.milli_value());
        }
    }

    #[test]
    fn addition_is_exact(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        prop_assert_eq!((Quantity::from_milli(a) + Quantity::from_milli(b)).milli_value(), a + b);
    }
}
