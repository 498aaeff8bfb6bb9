//! Kernel settings and namespaces: the two things that netlink does not do.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

use crate::Error;

/// Lets the host forward packets between the bridge and the world.
pub(crate) fn enable_forwarding() -> Result<(), Error> {
    write_setting(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")
}

/// Lets packets from 127.0.0.1 leave over the bridge: a host port answers on localhost too.
pub(crate) fn route_loopback_over(bridge: &str) -> Result<(), Error> {
    write_setting(&PathBuf::from(format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet")), "1")
}

/// Inside of a sandbox: the host would tell it that other sandboxes are on the same link (and so they are), but what
/// goes to them has to pass the host.
pub(crate) fn refuse_redirects(interface: &str) -> Result<(), Error> {
    for name in ["all", interface] {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/accept_redirects");
        write_setting(Path::new(&path), "0")?;
    }
    Ok(())
}

/// Writes only what differs: in a container /proc/sys is often read-only and already right.
fn write_setting(path: &Path, value: &str) -> Result<(), Error> {
    if fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| Error::Sysctl { path: path.to_owned(), source })
}

/// Runs `work` on a thread of its own inside the network namespace bound to `netns`. The thread ends
/// afterwards: a pool thread must never come back from another namespace.
pub(crate) async fn inside<T, W>(netns: &Path, work: W) -> Result<T, Error>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, Error> + Send + 'static,
{
    let path = netns.to_owned();
    let (answer, answered) = oneshot::channel();
    let enter_and_work = move || {
        let refused = |source| Error::Netns { path: path.clone(), source };
        let namespace = File::open(&path).map_err(refused)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| refused(errno.into()))?;
        work()
    };
    thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || drop(answer.send(enter_and_work())))
        .map_err(|source| Error::Netns { path: netns.to_owned(), source })?;
    answered.await.unwrap_or_else(|_| {
        let source = io::Error::other("the thread in the namespace died");
        Err(Error::Netns { path: netns.to_owned(), source })
    })
}
