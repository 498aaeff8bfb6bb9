//! A socket of the netfilter family. The kernel works on a batch while it is sent: when `send` returns, the answers are
//! there to be read.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with, sockopt,
};

use super::{HEADERS, Messages};

/// Kinds of answers that are not messages of a subsystem.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// A whole rule set of thousands of Services goes out in one piece.
const SEND_BUFFER: usize = 64 << 20;
const RECEIVE_BUFFER: usize = 8 << 20;
/// The kernel sends dumps in pieces of at most 32 KiB.
const PIECE: usize = 64 << 10;

/// An answer of the kernel.
pub(crate) struct Reply<'a> {
    /// Subsystem and message.
    pub(crate) kind: u16,
    /// The attributes after the headers.
    pub(crate) body: &'a [u8],
}

/// A netlink socket of the caller's network namespace.
pub(crate) struct Socket(OwnedFd);

/// The kernel's refusal of the message with this sequence number.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) sequence: u32,
    pub(crate) source: io::Error,
}

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        // Without CAP_NET_ADMIN these fail, and so will what is sent: that error says more.
        let _ = sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER);
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER);
        Ok(Self(socket))
    }

    /// Sends messages and reads the answers: the first refusal is the result.
    pub(crate) fn send(&self, messages: &Messages) -> Result<(), Refused> {
        let broken = |source: rustix::io::Errno| Refused { sequence: 0, source: source.into() };
        self.transmit(messages).map_err(broken)?;
        let mut piece = vec![0; PIECE];
        loop {
            let length = match recv(&self.0, &mut piece[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => length.min(PIECE),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(broken(error)),
            };
            for (kind, sequence, payload) in headers(&piece[..length]) {
                if kind == NLMSG_ERROR
                    && let Some(source) = error(payload)
                {
                    return Err(Refused { sequence, source });
                }
            }
        }
    }

    /// Sends one request for a dump and hands out what comes.
    pub(crate) fn dump(&self, request: &Messages, mut each: impl FnMut(Reply<'_>)) -> io::Result<()> {
        self.transmit(request)?;
        let mut piece = vec![0; PIECE];
        loop {
            let length = match recv(&self.0, &mut piece[..], RecvFlags::empty()) {
                Ok((_, length)) => length.min(PIECE),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (kind, _, payload) in headers(&piece[..length]) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return error(payload).map_or(Ok(()), Err),
                    kind => each(Reply { kind, body: payload.get(HEADERS - 16..).unwrap_or_default() }),
                }
            }
        }
    }

    fn transmit(&self, messages: &Messages) -> rustix::io::Result<()> {
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        sendto(&self.0, messages.bytes(), SendFlags::empty(), &kernel).map(drop)
    }
}

/// The messages in what was received: kind, sequence number, payload.
fn headers(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let payload = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, payload))
    })
}

/// The error in an error message; none when it only says that all went well.
fn error(payload: &[u8]) -> Option<io::Error> {
    let code = payload.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes)?;
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}
