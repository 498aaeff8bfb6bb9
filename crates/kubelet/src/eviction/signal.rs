//! What eviction looks at: signals, and amounts of them.

use std::fmt;

use crate::quantities;

/// A quantity that can run short, under upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory that is neither used nor held: the machine's minus the working set.
    MemoryAvailable,
    /// The same for the cgroup of all pods.
    AllocatableMemoryAvailable,
    /// Free bytes of the file system with the kubelet's directory and the logs.
    NodeFsAvailable,
    /// Free inodes of it.
    NodeFsInodesFree,
    /// Free bytes of the file system with the images.
    ImageFsAvailable,
    /// Free inodes of it.
    ImageFsInodesFree,
    /// Free bytes of the file system with the containers' writable layers.
    ContainerFsAvailable,
    /// Free inodes of it.
    ContainerFsInodesFree,
    /// Process ids that are left.
    PidAvailable,
}

/// The node condition that a signal sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pressure {
    /// `MemoryPressure`.
    Memory,
    /// `DiskPressure`.
    Disk,
    /// `PIDPressure`.
    Pid,
}

impl Pressure {
    /// The condition's type.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 9] = [
        Self::MemoryAvailable,
        Self::AllocatableMemoryAvailable,
        Self::NodeFsAvailable,
        Self::NodeFsInodesFree,
        Self::ImageFsAvailable,
        Self::ImageFsInodesFree,
        Self::ContainerFsAvailable,
        Self::ContainerFsInodesFree,
        Self::PidAvailable,
    ];

    /// The name in configurations and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::AllocatableMemoryAvailable => "allocatableMemory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::ContainerFsAvailable => "containerfs.available",
            Self::ContainerFsInodesFree => "containerfs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// The signal of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }

    /// The condition that it sets.
    #[must_use]
    pub fn pressure(self) -> Pressure {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => Pressure::Memory,
            Self::PidAvailable => Pressure::Pid,
            _ => Pressure::Disk,
        }
    }

    /// The resource that runs short, as eviction messages name it.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable | Self::AllocatableMemoryAvailable => "memory",
            Self::NodeFsInodesFree | Self::ImageFsInodesFree | Self::ContainerFsInodesFree => "inodes",
            Self::PidAvailable => "pids",
            _ => "ephemeral-storage",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much of something: so much, or a part of the capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, inodes or process ids.
    Exactly(i64),
    /// A part of the capacity, 0 to 1.
    Part(f64),
    /// A part of the capacity, but no more than so much.
    PartUpTo(f64, i64),
}

impl Amount {
    /// In bytes (inodes, ids) when all there is is `capacity`.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a threshold needs no more digits"
    )]
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Exactly(amount) => amount,
            Self::Part(part) => (capacity as f64 * part) as i64,
            Self::PartUpTo(part, most) => Self::Part(part).of(capacity).min(most),
        }
    }

    /// Nothing or everything: upstream's ways to switch a threshold off.
    pub(crate) fn is_off(self) -> bool {
        matches!(self, Self::Exactly(0)) || matches!(self, Self::Part(part) if part <= 0.0 || part >= 1.0)
    }
}

/// `100Mi` or `10%`.
#[must_use]
pub fn parse_amount(text: &str) -> Option<Amount> {
    let Some(percent) = text.strip_suffix('%') else {
        return quantities::value(text).filter(|amount| *amount >= 0).map(Amount::Exactly);
    };
    let percent: f64 = percent.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(Amount::Part(percent / 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_quantities_or_percentages() {
        assert_eq!(parse_amount("100Mi"), Some(Amount::Exactly(100 << 20)));
        assert_eq!(parse_amount("7.5%").map(|amount| amount.of(1_000)), Some(75));
        for bad in ["", "%", "-1", "101%", "-5%", "ten", "NaN%"] {
            assert_eq!(parse_amount(bad), None, "{bad}");
        }
        let default = Amount::PartUpTo(0.1, 1 << 30);
        assert_eq!((default.of(1_000), default.of(1 << 40)), (100, 1 << 30));
        assert!(Signal::ALL.into_iter().all(|signal| Signal::named(signal.as_str()) == Some(signal)));
    }
}
