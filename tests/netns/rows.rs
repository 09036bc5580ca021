//! Rows of UDP datagrams, each row given to the kernel at once by `UDP_SEGMENT`, as QUIC does.

use crate::node::noise;
use crate::socket::set_option;
use std::net::{SocketAddr, UdpSocket};

/// Rows that are sent.
pub const ROWS: usize = 100;
/// Datagrams of a row.
pub const ROW: usize = 40;

/// Sends rows to `target`, all datagrams of one length but for the last of each row; they arrive at `receiver` in order and unchanged.
pub fn send_rows(sender: &UdpSocket, (receiver, target): (&UdpSocket, SocketAddr), [len, last_len]: [usize; 2]) {
    set_option(sender, libc::SOL_UDP, libc::UDP_SEGMENT, len as libc::c_int);
    let mut datagram = vec![0; 2 * len];
    for row in 0..ROWS {
        let sent = noise(row as u64, (ROW - 1) * len + last_len);
        sender.send_to(&sent, target).unwrap();
        // One row is under way at a time, which no queue is too short for.
        for expected in sent.chunks(len) {
            let received = receiver.recv(&mut datagram).unwrap();
            assert!(datagram[..received] == *expected, "row {row}: {received} bytes and not {}", expected.len());
        }
    }
}
