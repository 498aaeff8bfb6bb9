//! Stop signals: the names and numbers that images and pods use.

use sampan_cri::v1;

/// SIGTERM.
pub(crate) const TERM: i32 = 15;
/// SIGKILL.
pub(crate) const KILL: i32 = 9;
/// SIGRTMIN as C libraries count it.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Linux's names on the architectures that we build for.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The number of `SIGQUIT`, `quit`, `3`, `RTMIN+3`, `SIGRTMAX-1`.
pub(crate) fn parse(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(have, _)| *have == name) {
        return Some(*number);
    }
    let (base, rest) = name
        .strip_prefix("RTMIN")
        .map(|rest| (RTMIN, rest))
        .or(name.strip_prefix("RTMAX").map(|rest| (RTMAX, rest)))?;
    // CRI's enum has names such as SIGRTMINPLUS3.
    let rest = rest.replace("PLUS", "+").replace("MINUS", "-");
    let offset: i32 = if rest.is_empty() { 0 } else { rest.parse().ok()? };
    let number = base + offset;
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// The signal that stops a container: the pod's, else the image's, else SIGTERM.
pub(crate) fn stop_signal(pod: v1::Signal, image: &str) -> i32 {
    if pod != v1::Signal::RuntimeDefault
        && let Some(number) = parse(pod.as_str_name())
    {
        return number;
    }
    parse(image).unwrap_or(TERM)
}

/// The CRI name of a number.
pub(crate) fn to_cri(number: i32) -> v1::Signal {
    let name = match number {
        RTMIN => "SIGRTMIN".to_owned(),
        RTMAX => "SIGRTMAX".to_owned(),
        35..=49 => format!("SIGRTMINPLUS{}", number - RTMIN),
        50..=63 => format!("SIGRTMAXMINUS{}", RTMAX - number),
        other => {
            let name = NAMES.iter().find(|(_, have)| *have == other).map_or("TERM", |(name, _)| *name);
            format!("SIG{name}")
        }
    };
    v1::Signal::from_str_name(&name).unwrap_or(v1::Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_understood() {
        for (text, number) in [("SIGQUIT", 3), ("quit", 3), ("3", 3), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGNOPE", "RTMIN+99"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(stop_signal(v1::Signal::Sigrtminplus3, "SIGINT"), 37);
        assert_eq!(stop_signal(v1::Signal::RuntimeDefault, "SIGINT"), 2);
        assert_eq!(stop_signal(v1::Signal::RuntimeDefault, ""), 15);
    }

    #[test]
    fn every_cri_signal_survives_the_way_back() {
        for number in 1..=64 {
            if (32..34).contains(&number) {
                continue;
            }
            let name = to_cri(number);
            assert_eq!(parse(name.as_str_name()), Some(number), "{number}");
        }
    }
}
