//! Sockets and options that the standard library does not have.

#![allow(unsafe_code)]

use socket2::{Domain, SockAddrStorage, Socket, Type};
use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Sets an option that is a number.
pub fn set_option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    set_bytes(socket, level, name, &value.to_ne_bytes());
}

/// Sets an option of any form.
pub fn set_bytes(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &[u8]) {
    let (pointer, len) = (value.as_ptr().cast(), value.len() as libc::socklen_t);
    // SAFETY: the pointer and length describe `value`, which the kernel reads during the call.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, len) };
    assert_eq!(outcome, 0, "option {name} of level {level}: {}", io::Error::last_os_error());
}

/// Opens a packet socket (packet(7)) for the whole frames that come in by one link of this thread's namespace, and go out by it.
pub fn open_link(link: &str) -> Socket {
    let name = CString::new(link).unwrap();
    // SAFETY: `name` is a terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no link {link}");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: plain numbers, and the storage is as large as any address.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as libc::c_int;
    // Without a protocol nothing comes in before the socket is bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
    // SAFETY: the storage holds an address of this length.
    let address = unsafe { socket2::SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) };
    socket.bind(&address).unwrap();
    socket
}

/// Waits until one of two sockets or devices has something, or the time is over.
pub fn wait_for_either(sockets: [&impl AsRawFd; 2], timeout: Duration) {
    let mut entries = sockets.map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let timeout = timeout.as_micros().div_ceil(1000) as libc::c_int;
    // SAFETY: the pointer and length describe `entries`.
    unsafe { libc::poll(entries.as_mut_ptr(), 2, timeout) };
}

/// Asks for an option that is a number.
pub fn option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> libc::c_int {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: both pointers are writable, and the length is that of `value`.
    let outcome = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(outcome, 0, "option {name} of level {level}: {}", io::Error::last_os_error());
    value
}

/// Receives a packet, and what the kernel tells beside it: control messages (cmsg(3)).
pub fn receive_with_control(socket: &impl AsRawFd, memory: &mut [u8]) -> io::Result<(usize, Vec<u8>)> {
    let mut control = vec![0; 256];
    let mut buffer = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
    // SAFETY: plain numbers and pointers, of which all-zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut buffer, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), control.len());
    // SAFETY: the message names memory that is writable and outlives the call, with its lengths.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    control.truncate(message.msg_controllen);
    Ok((len, control))
}
