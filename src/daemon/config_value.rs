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

/// A node of the DHT: the host's name or IPv4 address, and its port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Entrance(String);

impl TryFrom<String> for Entrance {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_host = |host: &str| {
            let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            (1..=MAX_HOST_LEN).contains(&host.len()) && host.bytes().all(is_fit)
        };
        let is_node = text.rsplit_once(':').is_some_and(|(host, port)| {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            is_host(host) && is_number && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if is_node {
            return Ok(Self(text));
        }
        // In a list it is the list that is pointed at.
        Err(format!("{text:?} is no node of the DHT: that is HOST:PORT, with a name or an IPv4 address"))
    }
}

impl From<Entrance> for String {
    fn from(entrance: Entrance) -> Self {
        entrance.0
    }
}

/// The longest name of a host (RFC 1035 §2.3.4).
const MAX_HOST_LEN: usize = 253;

/// The nodes of the DHT that let this one in, or none for the usual ones.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Entrance>")]
pub struct Entrances(Vec<Entrance>);

/// More are of no use: each is asked whenever the DHT is.
const MAX_ENTRANCES: usize = 8;

impl TryFrom<Vec<Entrance>> for Entrances {
    type Error = String;

    fn try_from(nodes: Vec<Entrance>) -> Result<Self, String> {
        let refused = || format!("at most {MAX_ENTRANCES} nodes of the DHT are asked first");
        (nodes.len() <= MAX_ENTRANCES).then_some(Self(nodes)).ok_or_else(refused)
    }
}

impl Entrances {
    /// Each as it is configured.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(|entrance| entrance.0.clone()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_the_dht_is_a_host_and_a_port_and_eight_are_enough() {
        let node = |text: &str| Entrance::try_from(text.to_owned());
        for text in ["192.0.2.1:6881", "dht.example:1", "a-b_c.example:65535"] {
            assert_eq!(node(text).map(String::from), Ok(text.to_owned()));
        }
        let long = format!("{}:1", "a".repeat(MAX_HOST_LEN + 1));
        for text in
            ["", ":", ":1", "a", "a:", "a:0", "a:65536", "a:+1", "a b:1", "[2001:db8::1]:1", "http://a:1", &long]
        {
            assert!(node(text).is_err(), "{text}");
        }
        let some = |count| Entrances::try_from(vec![node("a:1").unwrap(); count]);
        assert!(some(MAX_ENTRANCES).is_ok() && some(MAX_ENTRANCES + 1).is_err());
    }
}
