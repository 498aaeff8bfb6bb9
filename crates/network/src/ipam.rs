//! Which sandbox has which address: one small file per lease, so that a `kill -9` between any two lines
//! leaves either the whole lease or none.
//!
//! Addresses are given out round robin, as CNI's host-local does, so that an address that was just released
//! is the last to come back: connections of a dead pod do not reach a new one. After a reboot the sandboxes
//! are gone and [`Network::reconcile`](crate::Network::reconcile) frees what they had; so leases need no fsync.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{Error, Ipv4Cidr, PortMapping};

/// What one sandbox holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) ip: Ipv4Addr,
    pub(crate) ports: Vec<PortMapping>,
}

pub(crate) struct Ipam {
    dir: PathBuf,
    cidr: Ipv4Cidr,
    /// A std mutex: held for a lookup and one small file only, never across an await.
    state: Mutex<State>,
}

struct State {
    leases: BTreeMap<String, Lease>,
    used: HashSet<Ipv4Addr>,
    /// Offset of the address given out last.
    last: u32,
}

impl Ipam {
    pub(crate) fn open(dir: PathBuf, cidr: Ipv4Cidr) -> Result<Self, Error> {
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        let mut leases = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(at(&dir))? {
            let path = entry.map_err(at(&dir))?.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // A half-written lease was never acknowledged, and one outside the range is of an older
            // configuration: neither is worth keeping.
            let lease = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Lease>(&bytes).ok());
            match lease.filter(|lease| cidr.contains(lease.ip)) {
                Some(lease) => drop(leases.insert(id.to_owned(), lease)),
                None => fs::remove_file(&path).map_err(at(&path))?,
            }
        }
        let used: HashSet<_> = leases.values().map(|lease| lease.ip).collect();
        let last = used.iter().map(|ip| u32::from(*ip) - u32::from(cidr.network())).max().unwrap_or(1);
        Ok(Self { dir, cidr, state: Mutex::new(State { leases, used, last }) })
    }

    pub(crate) fn leases(&self) -> BTreeMap<String, Lease> {
        self.lock().leases.clone()
    }

    /// The sandbox's address: the one it has, or the next free one.
    pub(crate) fn allocate(&self, id: &str, ports: &[PortMapping]) -> Result<Ipv4Addr, Error> {
        let mut state = self.lock();
        let ip = match state.leases.get(id) {
            Some(lease) => lease.ip,
            None => self.next_free(&state).ok_or(Error::Exhausted(self.cidr))?,
        };
        let lease = Lease { ip, ports: ports.to_vec() };
        self.write(id, &lease)?;
        state.last = u32::from(ip) - u32::from(self.cidr.network());
        state.used.insert(ip);
        state.leases.insert(id.to_owned(), lease);
        Ok(ip)
    }

    pub(crate) fn release(&self, id: &str) -> Result<(), Error> {
        let mut state = self.lock();
        if let Some(lease) = state.leases.remove(id) {
            state.used.remove(&lease.ip);
        }
        let path = self.dir.join(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Skips the network address, the gateway and the broadcast address.
    fn next_free(&self, state: &State) -> Option<Ipv4Addr> {
        let usable = self.cidr.size() - 3;
        let candidates = (0..usable).map(|step| 2 + (state.last.max(1) - 1 + step) % usable);
        candidates.map(|offset| self.cidr.nth(offset)).find(|ip| !state.used.contains(ip))
    }

    fn write(&self, id: &str, lease: &Lease) -> Result<(), Error> {
        let path = self.dir.join(id);
        let temporary = self.dir.join(format!(".{id}"));
        let bytes = serde_json::to_vec(lease).map_err(|error| at(&path)(error.into()))?;
        fs::write(&temporary, bytes).map_err(at(&temporary))?;
        fs::rename(&temporary, &path).map_err(at(&path))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::State { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr() -> Ipv4Cidr {
        "10.9.8.0/29".parse().unwrap()
    }

    #[test]
    fn addresses_go_round_and_a_freed_one_comes_back_last() {
        let dir = tempfile::tempdir().unwrap();
        let ipam = Ipam::open(dir.path().into(), cidr()).unwrap();
        let last_octet = |id: &str| ipam.allocate(id, &[]).unwrap().octets()[3];
        assert_eq!([last_octet("a"), last_octet("b"), last_octet("c")], [2, 3, 4]);
        ipam.release("a").unwrap();
        assert_eq!([last_octet("d"), last_octet("e"), last_octet("f")], [5, 6, 2]);
        assert!(matches!(ipam.allocate("g", &[]), Err(Error::Exhausted(_))));
        assert_eq!(last_octet("b"), 3, "a sandbox keeps its address");
    }

    #[test]
    fn leases_survive_a_restart_and_half_written_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let ip = Ipam::open(dir.path().into(), cidr()).unwrap().allocate("a", &[]).unwrap();
        fs::write(dir.path().join("b"), b"{\"ip\":").unwrap();
        let ipam = Ipam::open(dir.path().into(), cidr()).unwrap();
        assert_eq!(ipam.leases().into_keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(ipam.allocate("a", &[]).unwrap(), ip);
        ipam.release("a").unwrap();
        ipam.release("a").unwrap();
    }
}
