//! What is known about each image: since when, and when it was last used. Pure, so that ages are tested.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use sampan_cri::v1;

#[derive(Clone, Debug)]
struct Record {
    first_detected: Timestamp,
    /// [`Timestamp::UNIX_EPOCH`] when no container ever used it in this kubelet's life.
    last_used: Timestamp,
    size: u64,
    pinned: bool,
}

/// An image that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) id: String,
    pub(super) size: u64,
}

/// All images by id.
#[derive(Debug, Default)]
pub(super) struct ImageRecords {
    images: HashMap<String, Record>,
    /// The time of the last look: what was used then is used.
    at: Option<Timestamp>,
}

impl ImageRecords {
    /// Takes in what a look found. `used` has ids, references and names; `seen` is the age of new images.
    pub(super) fn update(
        &mut self,
        images: Vec<v1::Image>,
        used: &HashSet<String>,
        seen: Timestamp,
        now: Timestamp,
    ) {
        let mut before = std::mem::take(&mut self.images);
        self.at = Some(now);
        for image in images {
            let names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            let is_used = names.into_iter().any(|name| used.contains(name));
            let mut record = before.remove(&image.id).unwrap_or(Record {
                first_detected: seen,
                last_used: Timestamp::UNIX_EPOCH,
                size: 0,
                pinned: false,
            });
            if is_used {
                record.last_used = now;
            }
            (record.size, record.pinned) = (image.size, image.pinned);
            self.images.insert(image.id, record);
        }
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.images.remove(id);
    }

    /// What may go for space: never what is in use, pinned, or younger than `min_age`.
    pub(super) fn unused_longest_first(&self, now: Timestamp, min_age: Duration) -> Vec<Victim> {
        let mut unused: Vec<(&String, &Record)> =
            self.unused().filter(|(_, record)| age(now, record.first_detected) >= min_age).collect();
        unused.sort_by_key(|(id, record)| (record.last_used, record.first_detected, (*id).clone()));
        victims(unused)
    }

    /// What nothing used for longer than `max_age`.
    pub(super) fn unused_for(&self, max_age: Duration, now: Timestamp) -> Vec<Victim> {
        let since = |record: &Record| record.last_used.max(record.first_detected);
        victims(self.unused().filter(|(_, record)| age(now, since(record)) > max_age).collect())
    }

    fn unused(&self) -> impl Iterator<Item = (&String, &Record)> {
        self.images.iter().filter(|(_, record)| !record.pinned && Some(record.last_used) != self.at)
    }
}

fn victims(records: Vec<(&String, &Record)>) -> Vec<Victim> {
    records.into_iter().map(|(id, record)| Victim { id: id.clone(), size: record.size }).collect()
}

fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn image(id: &str) -> v1::Image {
        v1::Image { id: id.into(), size: 10, repo_tags: vec![format!("{id}:1")], ..Default::default() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn ids(victims: Vec<Victim>) -> Vec<String> {
        victims.into_iter().map(|victim| victim.id).collect()
    }

    const TWO_MINUTES: Duration = Duration::from_secs(120);

    #[test]
    fn img_83_the_longest_unused_go_first_and_used_pinned_and_young_ones_stay() {
        let mut records = ImageRecords::default();
        let pinned = v1::Image { pinned: true, ..image("pinned") };
        let all = || vec![image("a"), image("b"), image("used"), pinned.clone()];
        let used = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
        records.update(all(), &used(&["b:1", "used"]), Timestamp::UNIX_EPOCH, at(0));
        assert_eq!(ids(records.unused_longest_first(at(0), TWO_MINUTES)), ["a"]);
        let later = [all(), vec![image("young")]].concat();
        records.update(later, &used(&["used:1"]), at(300), at(300));
        assert_eq!(ids(records.unused_longest_first(at(300), TWO_MINUTES)), ["a", "b"]);
        assert_eq!(ids(records.unused_longest_first(at(420), TWO_MINUTES)), ["a", "young", "b"]);
        // What is gone is forgotten.
        records.update(vec![image("b")], &used(&[]), at(600), at(600));
        assert_eq!(ids(records.unused_longest_first(at(600), TWO_MINUTES)), ["b"]);
    }

    #[test]
    fn img_84_what_is_unused_for_too_long_goes_whatever_the_disk() {
        let mut records = ImageRecords::default();
        let hour = Duration::from_secs(3_600);
        records.update(
            vec![image("a"), image("b")],
            &HashSet::from(["b".to_owned()]),
            Timestamp::UNIX_EPOCH,
            at(0),
        );
        records.update(vec![image("a"), image("b")], &HashSet::new(), at(60), at(60));
        assert_eq!(ids(records.unused_for(hour, at(60))), ["a"]);
        assert_eq!(records.unused_for(hour, at(3_601)).len(), 2);
    }
}
