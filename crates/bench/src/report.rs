//! The table at the end.

use std::time::Duration;

/// Lines of the table, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<[String; 3]>,
}

impl Report {
    /// Durations: median, 99th percentile and extremes.
    pub(crate) fn figure(&mut self, what: &str, promise: &str, mut times: Vec<Duration>) {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
        let text = format!(
            "p50 {:.1} ms, p99 {:.1} ms (min {:.1}, max {:.1}, n {})",
            at(0.5),
            at(0.99),
            at(0.0),
            at(1.0),
            times.len()
        );
        self.line(what, promise, text);
    }

    /// A size in bytes.
    pub(crate) fn size(&mut self, what: &str, promise: &str, bytes: u64) {
        self.line(what, promise, format!("{:.1} MB", bytes as f64 / 1e6));
    }

    /// How often a second: the median.
    pub(crate) fn rate(&mut self, what: &str, mut rates: Vec<f64>) {
        rates.sort_by(f64::total_cmp);
        self.line(what, "", format!("{:.0} /s", rates[rates.len() / 2]));
    }

    /// How many times slower `slow` is, by medians.
    pub(crate) fn ratio(&mut self, what: &str, slow: &[Duration], fast: &[Duration]) {
        let median = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort();
            times[times.len() / 2].as_secs_f64()
        };
        self.line(what, "", format!("{:.2} x", median(slow) / median(fast)));
    }

    /// Anything else.
    pub(crate) fn line(&mut self, what: &str, promise: &str, measured: String) {
        eprintln!("{what}: {measured}");
        self.lines.push([what.to_owned(), measured, promise.to_owned()]);
    }

    pub(crate) fn print(&self) {
        println!("\n| figure | measured | promise |\n|---|---|---|");
        for [what, measured, promise] in &self.lines {
            println!("| {what} | {measured} | {promise} |");
        }
    }
}
