//! Terminals: the master that an OCI runtime sends over its console socket, and sizes.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::protocol::TerminalSize;

/// How long a runtime that has connected may take to send the descriptor.
const PATIENCE: Duration = Duration::from_secs(5);

/// Receives the terminal's master.
pub(crate) fn receive_master(connection: &UnixStream) -> io::Result<OwnedFd> {
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut name = [0_u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(connection.as_fd(), &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut received = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    received
        .next()
        .and_then(|mut fds| fds.next())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no terminal was sent"))
}

/// Sets the terminal's size; its foreground processes get SIGWINCH.
pub(crate) fn resize(master: &OwnedFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_col: size.width, ws_row: size.height, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}
