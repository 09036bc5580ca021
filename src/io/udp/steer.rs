//! Which queue of a socket a datagram comes to: the one of the lane that it was sealed in, so that lanes, and the flows in them, keep their
//! order and several threads share one peer's traffic: also behind a relay's envelope. What is not a transport packet comes to the first.
//!
//! Worker w comes to queue w − 1, the number of the device's queue that it reads where it is: as many queues here as there, and a flow's
//! answers leave by the same queue. Were it another one, the kernel, which sends a flow by the queue that it last came by, would move it
//! round and round, and each move may change the order.

use crate::wire::datagram::{TYPE_RELAY, TYPE_TRANSPORT};
use crate::wire::relay::ENVELOPE_LEN;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `BPF_LD | BPF_B | BPF_ABS` and so on (linux/bpf_common.h).
const LOAD_BYTE: u16 = 0x30;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const SHIFT_RIGHT: u16 = 0x74;
const ADD: u16 = 0x04;
const MODULO: u16 = 0x94;
const RETURN_VALUE: u16 = 0x06;
const RETURN_ACCUMULATOR: u16 = 0x16;

const fn instruction(code: u16, jump_if_not: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: jump_if_not, k: value }
}

/// Has the kernel choose among `count` sockets, in the order of their binding, by the worker in a transport packet's lane. `first` is any of
/// them (socket(7), `SO_ATTACH_REUSEPORT_CBPF`): the program sees the datagram's payload.
///
/// # Errors
/// The kernel's; then it chooses by addresses and ports.
pub(super) fn by_lane(first: &OwnedFd, count: usize) -> io::Result<()> {
    let count = u32::try_from(count).ok().filter(|count| *count > 0).ok_or(io::ErrorKind::InvalidInput)?;
    let inside = ENVELOPE_LEN as u32;
    let mut program = [
        instruction(LOAD_BYTE, 0, 0),
        instruction(JUMP_IF_EQUAL, 2, u32::from(TYPE_TRANSPORT)),
        instruction(LOAD_BYTE, 0, 1),
        instruction(JUMP, 0, 4),
        instruction(JUMP_IF_EQUAL, 7, u32::from(TYPE_RELAY)),
        instruction(LOAD_BYTE, 0, inside),
        instruction(JUMP_IF_EQUAL, 5, u32::from(TYPE_TRANSPORT)),
        instruction(LOAD_BYTE, 0, inside + 1),
        instruction(SHIFT_RIGHT, 0, 4),
        instruction(ADD, 0, count - 1),
        instruction(MODULO, 0, count),
        instruction(RETURN_ACCUMULATOR, 0, 0),
        instruction(RETURN_VALUE, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `program` points at the instructions above, which outlive the call; the kernel copies them.
    let outcome = unsafe {
        libc::setsockopt(
            first.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
