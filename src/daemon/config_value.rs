//! Values of the configuration that have a form of their own.

use crate::io::device_name::{DeviceName, NotADeviceName};
use crate::wire::http_connect::{BadProxy, Proxy};
use crate::wire::record::{BadZone, ZoneName};
use serde::{Deserialize, Serialize};

/// The smallest MTU: IPv6 asks for it (RFC 8200 §5).
const MIN_MTU: u16 = 1280;
/// The largest MTU, a jumbo frame's: the data plane's buffers hold no longer packet.
pub const MAX_MTU: u16 = 9216;

/// A zone's name, or the empty text for the default one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionalZone(pub Option<ZoneName>);

impl TryFrom<String> for OptionalZone {
    type Error = BadZone;

    fn try_from(text: String) -> Result<Self, BadZone> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|zone| Self(Some(zone))) }
    }
}

impl From<OptionalZone> for String {
    fn from(zone: OptionalZone) -> Self {
        zone.0.map(|zone| zone.to_string()).unwrap_or_default()
    }
}

/// A proxy, or the empty text for none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionalProxy(pub Option<Proxy>);

impl TryFrom<String> for OptionalProxy {
    type Error = BadProxy;

    fn try_from(text: String) -> Result<Self, BadProxy> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|proxy| Self(Some(proxy))) }
    }
}

impl From<OptionalProxy> for String {
    fn from(proxy: OptionalProxy) -> Self {
        proxy.0.map(Self::from).unwrap_or_default()
    }
}

/// How many threads carry packets each way, or 0 for the machine's measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "u8")]
pub struct QueueCount(u8);

/// Threads each way at most: as many lanes as there are workers beside the node's own.
const MAX_QUEUES: u8 = 14;

impl TryFrom<u8> for QueueCount {
    type Error = String;

    fn try_from(count: u8) -> Result<Self, String> {
        let refused = || format!("queues are 1 to {MAX_QUEUES}, or 0 for one for each core");
        (count <= MAX_QUEUES).then_some(Self(count)).ok_or_else(refused)
    }
}

impl QueueCount {
    /// The number on this machine: one for each core, as far as a few do for any link.
    pub fn get(self) -> usize {
        match self.0 {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(4),
            count => count.into(),
        }
    }
}

/// An interface's MTU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Mtu(pub u16);

impl TryFrom<u16> for Mtu {
    type Error = String;

    fn try_from(bytes: u16) -> Result<Self, String> {
        if (MIN_MTU..=MAX_MTU).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(format!(
                "an MTU is {MIN_MTU} to {MAX_MTU}: IPv6 needs {MIN_MTU}, and no buffer is longer than {MAX_MTU}"
            ))
        }
    }
}

/// An interface's name, or the empty text for the default one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionalDeviceName(pub Option<DeviceName>);

impl TryFrom<String> for OptionalDeviceName {
    type Error = NotADeviceName;

    fn try_from(text: String) -> Result<Self, NotADeviceName> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|name| Self(Some(name))) }
    }
}

impl From<OptionalDeviceName> for String {
    fn from(name: OptionalDeviceName) -> Self {
        name.0.map(|name| name.to_string()).unwrap_or_default()
    }
}
