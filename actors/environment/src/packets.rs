//! Packets with descriptors over a local socket, and what fills those descriptors. Both
//! sides of a sandbox use it: the host, and the helper inside.

use crate::protocol::MAX_PACKET;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors in one packet at most.
const MAX_DESCRIPTORS: usize = 4;

/// Two ends of a socket that keeps the borders of packets and tells of its end.
///
/// # Errors
/// The system's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Sends one value, as JSON, and descriptors with it.
///
/// # Errors
/// The system's: `EPIPE` when the other side is gone.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    value: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::from)?;
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    loop {
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The next packet and what came with it; `None` at the end.
///
/// # Errors
/// The system's: `EAGAIN` when there is none now and the socket does not wait.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut descriptors = Vec::new();
    let length = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut space), flags) {
            Ok(message) => {
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = control {
                        // SAFETY: the kernel has just made these for us alone.
                        let owned = raw
                            .into_iter()
                            .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
                        descriptors.extend(owned);
                    }
                }
                break message.bytes;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some((bytes, descriptors)))
}

/// A file in memory that holds `bytes`, at its start.
///
/// # Errors
/// The system's.
pub fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let name = c"gametape";
    // SAFETY: the name is a valid C string; the result is checked before use.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Order;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn packets_arrive_one_by_one_with_what_came_with_them() {
        let (a, b) = pair().unwrap();
        let file = in_memory(b"long").unwrap();
        let run = Order::Run {
            job: 7,
            terminal: false,
        };
        send(a.as_fd(), &run, &[file.as_fd(), file.as_fd()]).unwrap();
        send(a.as_fd(), &Order::Kill { job: 7 }, &[]).unwrap();
        drop(a);
        let (bytes, mut descriptors) = receive(b.as_fd()).unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Order>(&bytes).unwrap(), run);
        assert_eq!(descriptors.len(), 2);
        let mut text = String::new();
        File::from(descriptors.remove(0))
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "long");
        let (_, none) = receive(b.as_fd()).unwrap().unwrap();
        assert!(none.is_empty());
        assert!(receive(b.as_fd()).unwrap().is_none());
        assert!(send(b.as_fd(), &run, &[]).is_err());
    }
}
