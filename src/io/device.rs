//! The device through which the host's packets come and go: a TUN interface, or none at all; and TAP interfaces, for frames.
//!
//! Owns the descriptor and its counters. Refuses to know addresses and routes ([`network`](super::network) sets them) and what a packet says.
//! Each packet has the kernel's vnet header in front: a read may give a super-packet of 64 KiB, and a write may be one.
//! The kernel spreads the host's flows over the device's queues ([`Device::queues`]); one thread reads each, any number write: [`Device`] is
//! one descriptor, cheap to clone. The interface vanishes, with its addresses and routes, when the last clone is dropped or the process
//! ends, however it ends.

#![allow(unsafe_code)]

use super::StopSignal;
use super::batch::PacketBuffer;
use super::stop::{Wake, wait_any};
use crate::crypto::hash::domain_hash;
use crate::wire::frame::MacAddress;
use crate::wire::handshake::OffloadSet;
use crate::wire::offload::VnetHeader;
use std::ffi::CString;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// The longest name that Linux gives an interface, in bytes (`IFNAMSIZ` − 1).
const NAME_MAX: usize = libc::IFNAMSIZ - 1;
/// Places that a packet's bytes lie in at most: the vnet header, its own headers, and 122 chunks.
const MAX_PARTS: usize = 128;
/// How long a reader rests after an error that may pass, so that no error makes it spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// What a TUN interface is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// The longest packet, in bytes.
    pub mtu: u16,
    /// How many threads will read; one at least.
    pub queues: usize,
    /// Whether the host gives and takes super-packets, as far as its kernel can.
    pub offload: bool,
}

/// What a TAP interface is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// The interface's name, at most 15 bytes.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// The longest packet in a frame, in bytes.
    pub mtu: u16,
    /// Whether the host gives and takes super-packets, as far as its kernel can.
    pub offload: bool,
}

/// Why a device could not be opened. All but `Failed` are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// An interface of this name exists: another daemon's, another program's.
    #[error("the interface {name} exists already: stop what owns it, or choose another name with --device")]
    NameInUse {
        /// The name.
        name: String,
    },
    /// Linux accepts no interface of this name.
    #[error("{name:?} is no name for an interface: 1 to {NAME_MAX} bytes, no slash, colon or blank, not . or ..")]
    BadName {
        /// The name.
        name: String,
    },
    /// The process lacks CAP_NET_ADMIN, or may not open `/dev/net/tun`.
    #[error(
        "no permission to create the interface {name}: run as root (CAP_NET_ADMIN), or without a device by --no-device"
    )]
    NoPermission {
        /// The name.
        name: String,
    },
    /// The kernel has no TUN driver, or the container does not pass it on.
    #[error(
        "/dev/net/tun is missing: load the kernel module tun, pass the device into the container, or use --no-device"
    )]
    NoDriver,
    /// Anything else the kernel said.
    #[error("cannot create the interface {name}: {source}")]
    Failed {
        /// The name.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Why a reader gets nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ReadEnd {
    /// The stop signal was triggered.
    #[error("stopped")]
    Stopped,
    /// Somebody removed the interface, or the descriptor is unusable.
    #[error("the device is gone: {0}")]
    Gone(io::Error),
}

/// Why a packet did not reach the host. Counted here already, a super-packet as refused, not as dropped: a caller may let it go.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The interface is not up (`EIO`).
    #[error("the interface is not up")]
    NotUp,
    /// The kernel takes no such packet, or has no memory for it.
    #[error("the kernel refused the packet: {0}")]
    Refused(io::Error),
}

/// What a device did so far. Packets, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Read from the host.
    pub read: u64,
    /// Read, but with a vnet header that is none: dropped.
    pub read_malformed: u64,
    /// Errors of a read that passed.
    pub read_errors: u64,
    /// Handed to the host.
    pub written: u64,
    /// Dropped because the interface was not up.
    pub write_not_up: u64,
    /// Dropped because the kernel refused them.
    pub write_refused: u64,
    /// Super-packets that the kernel refused: their segments are written one by one.
    pub super_packets_refused: u64,
    /// Dropped because there is no device.
    pub write_discarded: u64,
}

#[derive(Default)]
struct Counters {
    read: AtomicU64,
    read_malformed: AtomicU64,
    read_errors: AtomicU64,
    written: AtomicU64,
    write_not_up: AtomicU64,
    write_refused: AtomicU64,
    super_packets_refused: AtomicU64,
    write_discarded: AtomicU64,
}

/// The host's side of the tunnel, by one of its queues. Clones are the same queue of the same device.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
    queue: usize,
}

struct Shared {
    backend: Backend,
    counters: Counters,
}

enum Backend {
    Kernel { queues: Vec<SyncDevice>, name: String, index: u32, offload: OffloadSet },
    Absent,
}

impl Device {
    /// Creates a TUN interface, which stays down until [`Network::set_up`](super::network::Network::set_up).
    ///
    /// # Errors
    /// See [`DeviceError`]; an interface that exists is never adopted, a killed daemon's vanished with it.
    pub fn open(config: &TunConfig) -> Result<Self, DeviceError> {
        let builder = DeviceBuilder::new().layer(Layer::L3).mtu(config.mtu).multi_queue(config.queues > 1);
        Self::create(&config.name, builder, config.queues, config.offload)
    }

    /// Creates a TAP interface, which stays down likewise.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn open_tap(config: &TapConfig) -> Result<Self, DeviceError> {
        let builder = DeviceBuilder::new().layer(Layer::L2).mtu(config.mtu).mac_addr(config.mac.0);
        Self::create(&config.name, builder, 1, config.offload)
    }

    fn create(name: &str, builder: DeviceBuilder, queue_count: usize, offload: bool) -> Result<Self, DeviceError> {
        if interface_index(name)?.is_some() {
            return Err(DeviceError::NameInUse { name: name.to_owned() });
        }
        let builder = builder.name(name).offload(true).enable(false);
        let device = builder.build_sync().map_err(|source| open_error(name, source))?;
        let failed = |source| DeviceError::Failed { name: name.to_owned(), source };
        let index = device.if_index().map_err(failed)?;
        let mut queues = vec![device];
        while queues.len() < queue_count {
            queues.push(queues[0].try_clone().map_err(failed)?);
        }
        queues.iter().try_for_each(|queue| queue.set_nonblocking(true)).map_err(failed)?;
        let offload = if offload {
            offer_offload(&queues[0])
        } else {
            set_offload(&queues[0], 0).map(|()| OffloadSet { frames: true, ..OffloadSet::default() })
        };
        let offload = offload.map_err(failed)?;
        Ok(Self::of(Backend::Kernel { queues, name: name.to_owned(), index, offload }))
    }

    /// Makes the device of a node without one: nothing is ever read, what is written is counted and dropped.
    pub fn absent() -> Self {
        Self::of(Backend::Absent)
    }

    fn of(backend: Backend) -> Self {
        Self { shared: Arc::new(Shared { backend, counters: Counters::default() }), queue: 0 }
    }

    /// Returns the device once for each of its queues. What is written to one is answered to it, as far as the kernel can tell flows apart.
    pub fn queues(&self) -> Vec<Self> {
        let count = if let Backend::Kernel { queues, .. } = &self.shared.backend { queues.len() } else { 1 };
        (0..count).map(|queue| Self { shared: Arc::clone(&self.shared), queue }).collect()
    }

    /// Returns which queue this is, from 0.
    pub fn queue(&self) -> usize {
        self.queue
    }

    fn tun(&self) -> Option<&SyncDevice> {
        match &self.shared.backend {
            Backend::Kernel { queues, .. } => queues.get(self.queue),
            Backend::Absent => None,
        }
    }

    /// Returns the interface's name, if there is one.
    pub fn name(&self) -> Option<&str> {
        match &self.shared.backend {
            Backend::Kernel { name, .. } => Some(name),
            Backend::Absent => None,
        }
    }

    /// Returns the interface's index, if there is one.
    pub fn index(&self) -> Option<u32> {
        match &self.shared.backend {
            Backend::Kernel { index, .. } => Some(*index),
            Backend::Absent => None,
        }
    }

    /// Returns the super-packets that the host takes from here; frames it takes wherever there is a device.
    pub fn offload(&self) -> OffloadSet {
        match self.shared.backend {
            Backend::Kernel { offload, .. } => offload,
            Backend::Absent => OffloadSet::default(),
        }
    }

    /// Waits until there is a packet to read.
    ///
    /// # Errors
    /// [`ReadEnd::Stopped`].
    pub fn wait(&self, stop: &StopSignal) -> Result<(), ReadEnd> {
        let wake = match self.tun() {
            Some(device) => stop.wait(device.as_fd(), None),
            None => stop.sleep(Duration::MAX),
        };
        if wake == Wake::Stopped { Err(ReadEnd::Stopped) } else { Ok(()) }
    }

    /// Waits until one of `devices` has something to read, or `replaced` is triggered. Says in `ready` which have, one word for each.
    ///
    /// # Errors
    /// [`ReadEnd::Stopped`].
    pub fn wait_any<'d>(
        devices: impl Iterator<Item = &'d Self>,
        stop: &StopSignal,
        replaced: &StopSignal,
        ready: &mut Vec<bool>,
    ) -> Result<(), ReadEnd> {
        let fds: Vec<BorrowedFd<'d>> = devices.filter_map(|device| device.tun().map(SyncDevice::as_fd)).collect();
        if wait_any(stop, replaced, &fds, ready) == Wake::Stopped { Err(ReadEnd::Stopped) } else { Ok(()) }
    }

    /// Reads one packet, or super-packet, without waiting; `None` when there is none.
    ///
    /// # Errors
    /// [`ReadEnd::Gone`].
    pub fn read(&self, stop: &StopSignal, buffer: &mut PacketBuffer) -> Result<Option<VnetHeader>, ReadEnd> {
        let counters = &self.shared.counters;
        let Some(device) = self.tun() else { return Ok(None) };
        loop {
            let errno = match device.recv(buffer.memory()) {
                Ok(len) => match buffer.fill(len).map(VnetHeader::decode) {
                    Some(Ok(vnet)) => {
                        count(&counters.read);
                        return Ok(Some(vnet));
                    }
                    Some(Err(_)) | None => {
                        count(&counters.read_malformed);
                        continue;
                    }
                },
                Err(error) => error,
            };
            match errno.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(None),
                Some(libc::EINTR) => {}
                // Seen on an interface that is not up yet; the others pass when there is memory again.
                Some(libc::EIO | libc::ENOMEM | libc::ENOBUFS) => {
                    count(&counters.read_errors);
                    stop.sleep(ERROR_PAUSE);
                    return Ok(None);
                }
                // EBADFD, EFAULT: the interface was removed under us.
                _ => return Err(ReadEnd::Gone(errno)),
            }
        }
    }

    /// Hands one whole packet to the host. Never waits.
    ///
    /// # Errors
    /// [`WriteError`]; the packet is dropped and counted.
    pub fn write(&self, packet: &[u8]) -> Result<(), WriteError> {
        self.write_parts(&VnetHeader::default(), &[packet])
    }

    /// Hands one packet or super-packet to the host, whose bytes lie in several places. Never waits.
    ///
    /// # Errors
    /// [`WriteError`]; the packet is dropped and counted.
    pub fn write_parts(&self, vnet: &VnetHeader, parts: &[&[u8]]) -> Result<(), WriteError> {
        let counters = &self.shared.counters;
        let Some(device) = self.tun() else {
            count(&counters.write_discarded);
            return Ok(());
        };
        let (is_super, vnet) = (vnet.segments.is_some(), vnet.encode());
        let mut slices = [IoSlice::new(&[]); MAX_PARTS];
        slices[0] = IoSlice::new(&vnet);
        let Some(room) = slices.get_mut(1..=parts.len()) else {
            count(&counters.write_refused);
            return Err(WriteError::Refused(io::ErrorKind::InvalidInput.into()));
        };
        room.iter_mut().zip(parts).for_each(|(slice, part)| *slice = IoSlice::new(part));
        loop {
            match device.send_vectored(&slices[..=parts.len()]) {
                Ok(_) => {
                    count(&counters.written);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    count(&counters.write_not_up);
                    return Err(WriteError::NotUp);
                }
                Err(error) if is_super => {
                    count(&counters.super_packets_refused);
                    return Err(WriteError::Refused(error));
                }
                Err(error) => {
                    count(&counters.write_refused);
                    return Err(WriteError::Refused(error));
                }
            }
        }
    }

    /// Returns what the device did so far.
    pub fn counts(&self) -> DeviceCounts {
        let counters = &self.shared.counters;
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeviceCounts {
            read: value(&counters.read),
            read_malformed: value(&counters.read_malformed),
            read_errors: value(&counters.read_errors),
            written: value(&counters.written),
            write_not_up: value(&counters.write_not_up),
            write_refused: value(&counters.write_refused),
            super_packets_refused: value(&counters.super_packets_refused),
            write_discarded: value(&counters.write_discarded),
        }
    }
}

/// Returns the default name of a network's interface: `p2p-NET`, with a long name cut and a few digits of its hash in the place of the rest.
pub fn default_interface_name(network: &str) -> String {
    interface_name("p2p-", network)
}

/// Returns the name of a segment's interface: `p2t-SEGMENT`, likewise cut.
pub fn segment_interface_name(segment: &str) -> String {
    interface_name("p2t-", segment)
}

/// Returns the name of the bridge that is made for a segment: `p2b-SEGMENT`, likewise cut.
pub fn segment_bridge_name(segment: &str) -> String {
    interface_name("p2b-", segment)
}

fn interface_name(prefix: &str, of: &str) -> String {
    let whole = format!("{prefix}{of}");
    if whole.len() <= NAME_MAX {
        return whole;
    }
    // 5 hexadecimal digits: two of a machine's few networks that begin alike still get different names.
    let digest = domain_hash("P2Plus/1 interface name", &[of.as_bytes()]).to_string();
    let kept: String = of.chars().filter(char::is_ascii).take(NAME_MAX - prefix.len() - 5).collect();
    format!("{prefix}{kept}{}", &digest[..5])
}

/// Super-packets of TCP, also those that tell of a mark (CWR, RFC 3168 §6.1.2).
const OF_TCP: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// Rows of UDP datagrams: since Linux 6.2.
const OF_UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// Has the host give and take as much as it can, on all queues.
fn offer_offload(device: &SyncDevice) -> io::Result<OffloadSet> {
    match set_offload(device, OF_TCP | OF_UDP) {
        Ok(()) => Ok(OffloadSet { tcp: true, udp: true, frames: true }),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            set_offload(device, OF_TCP).map(|()| OffloadSet { tcp: true, udp: false, frames: true })
        }
        Err(error) => Err(error),
    }
}

fn set_offload(device: &SyncDevice, features: libc::c_uint) -> io::Result<()> {
    // SAFETY: the device is open, and this request takes an integer.
    let outcome = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(features)) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Looks an interface up by its name, in the network namespace of this thread.
fn interface_index(name: &str) -> Result<Option<u32>, DeviceError> {
    let bad = || DeviceError::BadName { name: name.to_owned() };
    let has_bad_byte = name.bytes().any(|byte| matches!(byte, b'/' | b':' | 0..=b' '));
    if name.is_empty() || name.len() > NAME_MAX || has_bad_byte || name == "." || name == ".." {
        return Err(bad());
    }
    let name = CString::new(name).map_err(|_| bad())?;
    // SAFETY: `name` is a terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    Ok((index != 0).then_some(index))
}

fn open_error(name: &str, source: io::Error) -> DeviceError {
    let name = name.to_owned();
    match source.raw_os_error() {
        // EINVAL: the name belongs to an interface of another kind. Both only when somebody was faster than our look.
        Some(libc::EBUSY | libc::EINVAL | libc::EEXIST) => DeviceError::NameInUse { name },
        Some(libc::EPERM | libc::EACCES) => DeviceError::NoPermission { name },
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => DeviceError::NoDriver,
        _ => DeviceError::Failed { name, source },
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn an_absent_device_blocks_its_reader_until_stopped_and_counts_what_is_written() {
        let (device, stop) = (Device::absent(), StopSignal::new().unwrap());
        let reader = thread::spawn({
            let (device, stop) = (device.clone(), stop.clone());
            move || device.wait(&stop)
        });
        device.write(b"packet").unwrap();
        stop.trigger();
        assert!(matches!(reader.join().unwrap(), Err(ReadEnd::Stopped)));
        assert_eq!(device.counts(), DeviceCounts { write_discarded: 1, ..DeviceCounts::default() });
    }

    #[test]
    fn a_name_that_linux_refuses_is_refused_with_the_reason() {
        for name in ["", "sixteen-letters-", "a/b", "a b", "a:b", "..", "nul\0"] {
            let config = TunConfig { name: name.to_owned(), mtu: 1280, queues: 1, offload: true };
            assert!(matches!(Device::open(&config), Err(DeviceError::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn an_interface_that_exists_is_not_taken() {
        let config = TunConfig { name: "lo".to_owned(), mtu: 1280, queues: 2, offload: true };
        let Err(error) = Device::open(&config) else { panic!("took lo over") };
        assert!(matches!(&error, DeviceError::NameInUse { name } if name == "lo"));
        assert!(error.to_string().contains("--device"));
    }

    #[test]
    fn what_the_kernel_says_becomes_what_the_operator_can_do() {
        let error = |errno| open_error("p2p-home", io::Error::from_raw_os_error(errno));
        assert!(matches!(error(libc::EPERM), DeviceError::NoPermission { .. }));
        assert!(matches!(error(libc::EACCES), DeviceError::NoPermission { .. }));
        assert!(matches!(error(libc::EBUSY), DeviceError::NameInUse { .. }));
        assert!(matches!(error(libc::ENOENT), DeviceError::NoDriver));
        assert!(matches!(error(libc::EMFILE), DeviceError::Failed { .. }));
    }

    #[test]
    fn default_names_fit_and_tell_long_networks_apart() {
        assert_eq!(default_interface_name("home"), "p2p-home");
        assert_eq!(default_interface_name("elevenbytes"), "p2p-elevenbytes");
        let (left, right) = (default_interface_name("long-network-one"), default_interface_name("long-network-two"));
        assert!(left != right && left.len() == NAME_MAX && left.starts_with("p2p-long-n"), "{left}");
        assert_eq!(segment_interface_name("lab"), "p2t-lab");
        let long = [segment_interface_name("long-network-one"), segment_bridge_name("long-network-one")];
        assert_eq!(long, [left.replace("p2p", "p2t"), left.replace("p2p", "p2b")]);
    }
}
