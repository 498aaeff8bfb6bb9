//! The query of a log request.

use std::time::Duration;

use jiff::Timestamp;

/// What part of a log is wanted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) follow: bool,
    pub(super) previous: bool,
    /// What the container's lifecycle hooks printed instead of what it printed itself.
    pub(super) hooks: bool,
    pub(super) timestamps: bool,
    pub(super) since: Option<Timestamp>,
    pub(super) tail_lines: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    /// `stdout` or `stderr` alone.
    pub(super) stream: Option<&'static str>,
}

impl LogOptions {
    pub(super) fn parse(query: &str, now: Timestamp) -> Result<Self, String> {
        let mut options = Self::default();
        for (key, value) in super::super::streaming::query_pairs(query) {
            let invalid = || format!("invalid value {value:?} of {key:?}");
            let flag = || matches!(value.as_str(), "true" | "1");
            let number = || value.parse::<u64>().map_err(|_| invalid());
            match key.as_str() {
                "follow" => options.follow = flag(),
                "previous" => options.previous = flag(),
                "hooks" => options.hooks = flag(),
                "timestamps" => options.timestamps = flag(),
                // Upstream counts "all" as no limit.
                "tailLines" | "tail" if value == "all" => {}
                "tailLines" | "tail" => options.tail_lines = Some(number()?),
                "limitBytes" => options.limit_bytes = Some(number()?),
                "sinceSeconds" => {
                    options.since = now.checked_sub(Duration::from_secs(number()?)).ok();
                }
                "sinceTime" => options.since = Some(value.parse().map_err(|_| invalid())?),
                "stream" => {
                    options.stream = match value.as_str() {
                        "All" | "" => None,
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        _ => return Err(invalid()),
                    };
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn queries_are_understood() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let options =
            LogOptions::parse("follow=true&tailLines=5&sinceSeconds=60&stream=Stderr&timestamps=true", now)
                .unwrap();
        assert!(options.follow && options.timestamps && !options.previous);
        assert_eq!((options.tail_lines, options.stream), (Some(5), Some("stderr")));
        assert_eq!(options.since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert!(LogOptions::parse("tailLines=x", now).is_err());
        let since = LogOptions::parse("sinceTime=2026-01-01T00%3A00%3A00Z", now).unwrap().since;
        assert_eq!(since, options.since);
    }
}
