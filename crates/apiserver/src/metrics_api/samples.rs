//! Two looks at a node, and what was used between them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

/// CPU time so far and memory now.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    at: Timestamp,
    started: Option<Timestamp>,
    cpu_nanos: u64,
    memory: u64,
}

/// CPU in billionths of a core and memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    cpu: u64,
    memory: u64,
}

impl Usage {
    /// As upstream's metrics server writes it.
    pub(super) fn to_value(self) -> Value {
        json!({"cpu": format!("{}n", self.cpu), "memory": format!("{}Ki", self.memory / 1_024)})
    }
}

/// One look at a node: itself, and the containers of its pods by UID and name.
pub(super) struct Sample {
    taken: Instant,
    at: Timestamp,
    node: Option<Point>,
    pods: HashMap<String, BTreeMap<String, Point>>,
}

impl Sample {
    /// Reads a kubelet's summary.
    pub(super) fn read(summary: &Value) -> Self {
        let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
        let mut pods = HashMap::new();
        for pod in list(summary, "pods") {
            let uid = pod["podRef"]["uid"].as_str().unwrap_or_default().to_owned();
            let containers = list(&pod, "containers")
                .iter()
                .filter_map(|container| Some((container["name"].as_str()?.to_owned(), point(container)?)))
                .collect();
            pods.insert(uid, containers);
        }
        let node = point(&summary["node"]);
        Self { taken: Instant::now(), at: node.map_or_else(Timestamp::now, |node| node.at), node, pods }
    }
}

fn point(value: &Value) -> Option<Point> {
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    Some(Point {
        at: time(&value["cpu"]["time"])?,
        started: time(&value["startTime"]),
        cpu_nanos: value["cpu"]["usageCoreNanoSeconds"].as_u64()?,
        memory: value["memory"]["workingSetBytes"].as_u64()?,
    })
}

/// What was used, and when.
#[derive(Clone)]
pub(super) struct Rates {
    pub(super) at: Timestamp,
    pub(super) window: Duration,
    pub(super) node: Option<Usage>,
    /// By the pod's UID, then by container.
    pub(super) pods: HashMap<String, BTreeMap<String, Usage>>,
}

/// The last two looks.
#[derive(Default)]
pub(super) struct Samples {
    before: Option<Sample>,
    latest: Option<Sample>,
}

impl Samples {
    /// How long ago the latest was.
    pub(super) fn age(&self) -> Option<Duration> {
        self.latest.as_ref().map(|sample| sample.taken.elapsed())
    }

    pub(super) fn add(&mut self, sample: Sample) {
        self.before = self.latest.take();
        self.latest = Some(sample);
    }

    /// The rates between the two; `None` before there are two.
    pub(super) fn rates(&self) -> Option<Rates> {
        let (before, latest) = (self.before.as_ref()?, self.latest.as_ref()?);
        let pods = latest.pods.iter().map(|(uid, containers)| {
            let earlier = before.pods.get(uid);
            let usages = containers
                .iter()
                .filter_map(|(name, now)| {
                    let then = earlier.and_then(|containers| containers.get(name));
                    Some((name.clone(), usage(then, now)?))
                })
                .collect();
            (uid.clone(), usages)
        });
        Some(Rates {
            at: latest.at,
            window: Duration::try_from(latest.at.duration_since(before.at)).unwrap_or_default(),
            node: latest.node.as_ref().and_then(|now| usage(before.node.as_ref(), now)),
            pods: pods.collect(),
        })
    }
}

/// What began in between counts from its beginning.
fn usage(then: Option<&Point>, now: &Point) -> Option<Usage> {
    let (since, used) = match then {
        Some(then) if then.cpu_nanos <= now.cpu_nanos && then.at < now.at => (then.at, then.cpu_nanos),
        _ => (now.started.filter(|started| *started < now.at)?, 0),
    };
    let nanos = now.at.duration_since(since).as_nanos().max(1);
    let rate = i128::from(now.cpu_nanos - used) * 1_000_000_000 / nanos;
    Some(Usage { cpu: u64::try_from(rate).ok()?, memory: now.memory })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn look(second: u32, cpu_nanos: u64, second_container: Option<u64>) -> Sample {
        let at = format!("2026-01-01T00:00:{second:02}Z");
        let container = |name: &str, cpu: u64, started: &str| json!({"name": name, "startTime": started, "cpu": {"time": at, "usageCoreNanoSeconds": cpu}, "memory": {"workingSetBytes": 4096}});
        let mut containers = vec![container("a", cpu_nanos, "2025-01-01T00:00:00Z")];
        containers.extend(second_container.map(|cpu| container("b", cpu, "2026-01-01T00:00:08Z")));
        Sample::read(&json!({
            "node": {"cpu": {"time": at, "usageCoreNanoSeconds": 10 * cpu_nanos}, "memory": {"workingSetBytes": 1 << 20}},
            "pods": [{"podRef": {"uid": "u"}, "containers": containers}],
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_those_between_two_looks() {
        let mut samples = Samples::default();
        samples.add(look(0, 1_000_000_000, None));
        assert!(samples.rates().is_none() && samples.age().is_some());
        samples.add(look(10, 2_000_000_000, Some(1_000_000_000)));
        let rates = samples.rates().unwrap();
        assert_eq!(rates.window, Duration::from_secs(10));
        assert_eq!(rates.node.unwrap().to_value(), json!({"cpu": "1000000000n", "memory": "1024Ki"}));
        assert_eq!(rates.pods["u"]["a"], Usage { cpu: 100_000_000, memory: 4096 });
        assert_eq!(rates.pods["u"]["b"].cpu, 500_000_000, "what began 2 s ago counts from there");
    }

    #[test]
    fn a_container_that_began_anew_counts_from_its_start() {
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z").parse().unwrap();
        let then = Point { at: at(0), started: None, cpu_nanos: 900, memory: 0 };
        let now = Point { at: at(10), started: Some(at(9)), cpu_nanos: 500, memory: 1 };
        assert_eq!(usage(Some(&then), &now).unwrap().cpu, 500);
        assert_eq!(usage(None, &Point { started: None, ..now }), None);
    }
}
