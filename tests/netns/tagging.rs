//! A cable in user space that gives all frames of one link a VLAN tag and puts them on another, and takes it from those that come back:
//! a kernel without 802.1Q has no such link of its own.
//!
//! ```text
//!   sockets ── untagged ── plain ╌╌ a thread: + tag, - tag ╌╌ p2t-lab
//! ```
//! Frames pass with their vnet header, so that a super-packet stays one.

use crate::lab::Host;
use crate::socket::{open_link, receive_with_control, set_option, wait_for_either};
use p2plus::wire::frame::{ETHERTYPE_TAG, LINK_HEADER_LEN, TAG_LEN};
use p2plus::wire::offload::{VNET_HEADER_LEN, VnetHeader};
use socket2::Socket;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// VLAN 42 with priority 5.
const TAG: u16 = 5 << 13 | 42;
/// Options of packet(7) that the crate libc does not name.
const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_VNET_HDR: libc::c_int = 15;
/// Where the kernel's word about a tag is, in the control message about a frame (`tpacket_auxdata`).
const STATUS: usize = size_of::<libc::cmsghdr>();
const TCI: usize = STATUS + 16;
/// Where the two addresses of a frame end and its tag goes.
const TAG_AT: usize = VNET_HEADER_LEN + LINK_HEADER_LEN - 2;
const MEMORY: usize = VNET_HEADER_LEN + LINK_HEADER_LEN + TAG_LEN + 65_536;
const LOOK: Duration = Duration::from_millis(20);

/// The cable, until it is dropped.
pub struct Tagging {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tagging {
    /// Makes a link `untagged` on the host whose frames have a tag on `link`.
    pub fn start(host: &Host, link: &str) -> Self {
        host.ip("link add untagged type veth peer name plain");
        for end in ["plain", link] {
            host.sysctl(&format!("net/ipv6/conf/{end}/disable_ipv6"), "1");
            host.ip(&format!("link set {end} up"));
        }
        let ends = ["plain", link].map(|end| {
            let socket = host.run(|| open_link(end));
            set_option(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1);
            set_option(&socket, libc::SOL_PACKET, PACKET_AUXDATA, 1);
            socket.set_nonblocking(true).unwrap();
            socket
        });
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        Self { ended, thread: Some(thread::spawn(move || carry(&ends, &end))) }
    }
}

impl Drop for Tagging {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // A panic in there was printed already.
        self.thread.take().map(JoinHandle::join);
    }
}

fn carry([plain, tagged]: &[Socket; 2], ended: &AtomicBool) {
    let mut memory = vec![0; MEMORY];
    while !ended.load(Ordering::Acquire) {
        wait_for_either([plain, tagged], LOOK);
        while let Some((len, None)) = take(plain, &mut memory[..MEMORY - TAG_LEN]) {
            memory.copy_within(TAG_AT..len, TAG_AT + TAG_LEN);
            memory[TAG_AT..TAG_AT + 2].copy_from_slice(&ETHERTYPE_TAG.to_be_bytes());
            memory[TAG_AT + 2..TAG_AT + 4].copy_from_slice(&TAG.to_be_bytes());
            let (vnet, _) = memory.split_first_chunk_mut::<VNET_HEADER_LEN>().unwrap();
            *vnet = VnetHeader::decode(vnet).unwrap().behind(TAG_LEN).encode();
            put(tagged, &memory[..len + TAG_LEN]);
        }
        // The kernel takes the tag out of a frame and names it beside.
        while let Some((len, tag)) = take(tagged, &mut memory) {
            // What came before the socket asked for tags, and what the host says of its own accord, is not of this network.
            if tag == Some(TAG) {
                put(plain, &memory[..len]);
            }
        }
    }
}

/// Takes a frame that came, and its tag.
fn take(socket: &Socket, memory: &mut [u8]) -> Option<(usize, Option<u16>)> {
    match receive_with_control(socket, memory) {
        Ok((len, control)) => {
            let status = u32::from_ne_bytes(*control[STATUS..].first_chunk().unwrap());
            let tag = u16::from_ne_bytes(*control[TCI..].first_chunk().unwrap());
            Some((len, (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tag)))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

fn put(socket: &Socket, frame: &[u8]) {
    match socket.send(frame) {
        Ok(_) => {}
        // No room: lost, as on any cable.
        Err(error) if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS) => {}
        Err(error) => panic!("{} bytes: {error}", frame.len()),
    }
}
