//! Kernel settings that a node changes where it passes packets on for others.

use super::HostError;
use crate::io::device_name::DeviceName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the kernel has its settings.
const ROOT: &str = "/proc/sys";
/// What stands for every interface in a setting's place for one.
const EVERY_INTERFACE: &str = "all";
/// Where nobody advertises anything.
const LOOPBACK: &str = "lo";
/// What stands for interfaces that are still to come.
const NEW_INTERFACE: &str = "default";

/// A setting: there are no others that this program touches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sysctl {
    /// Whether IPv4 packets that come by this interface are passed on.
    Ipv4Forwarding(DeviceName),
    /// Whether router advertisements are heeded: 1 where packets are not passed on, 2 always.
    Ipv6AcceptRa(DeviceName),
    /// Whether IPv6 packets are passed on; only for `all` interfaces together does the kernel heed it.
    Ipv6Forwarding(DeviceName),
    /// Whether the check of where packets come from heeds their marks.
    Ipv4SourceHeedsMark,
}

/// Text that names no [`Sysctl`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no setting of the kernel that this program touches")]
pub struct NoSuchSysctl;

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4Forwarding(interface) => write!(f, "net/ipv4/conf/{interface}/forwarding"),
            Self::Ipv6Forwarding(interface) => write!(f, "net/ipv6/conf/{interface}/forwarding"),
            Self::Ipv6AcceptRa(interface) => write!(f, "net/ipv6/conf/{interface}/accept_ra"),
            Self::Ipv4SourceHeedsMark => f.write_str("net/ipv4/conf/all/src_valid_mark"),
        }
    }
}

impl FromStr for Sysctl {
    type Err = NoSuchSysctl;

    fn from_str(text: &str) -> Result<Self, NoSuchSysctl> {
        let interface = |name: &str| name.parse().map_err(|_| NoSuchSysctl);
        match text.split('/').collect::<Vec<_>>()[..] {
            ["net", "ipv4", "conf", "all", "src_valid_mark"] => Ok(Self::Ipv4SourceHeedsMark),
            ["net", "ipv4", "conf", name, "forwarding"] => Ok(Self::Ipv4Forwarding(interface(name)?)),
            ["net", "ipv6", "conf", name, "forwarding"] => Ok(Self::Ipv6Forwarding(interface(name)?)),
            ["net", "ipv6", "conf", name, "accept_ra"] => Ok(Self::Ipv6AcceptRa(interface(name)?)),
            _ => Err(NoSuchSysctl),
        }
    }
}

impl TryFrom<String> for Sysctl {
    type Error = NoSuchSysctl;

    fn try_from(text: String) -> Result<Self, NoSuchSysctl> {
        text.parse()
    }
}

impl From<Sysctl> for String {
    fn from(sysctl: Sysctl) -> Self {
        sysctl.to_string()
    }
}

impl Sysctl {
    fn path(&self) -> PathBuf {
        PathBuf::from(ROOT).join(self.to_string())
    }

    /// Reads it; `None` when its interface is gone.
    ///
    /// # Errors
    /// [`HostError::Sysctl`].
    pub(super) fn read(&self) -> Result<Option<String>, HostError> {
        match std::fs::read_to_string(self.path()) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HostError::Sysctl { key: self.clone(), source }),
        }
    }

    /// Sets it; one whose interface is gone is fine.
    ///
    /// # Errors
    /// [`HostError::Sysctl`].
    pub(super) fn write(&self, value: &str) -> Result<(), HostError> {
        match std::fs::write(self.path(), value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(|source| HostError::Sysctl { key: self.clone(), source }),
        }
    }

    /// Whether IPv4 packets are passed on that come by whatever interface.
    pub(super) fn of_every_interface() -> Self {
        Self::Ipv4Forwarding(EVERY_INTERFACE.parse().expect("a plain name"))
    }

    /// Says whether it lets packets through.
    pub(super) const fn is_forwarding(&self) -> bool {
        matches!(self, Self::Ipv4Forwarding(_) | Self::Ipv6Forwarding(_))
    }

    /// The settings that the kernel takes along when this one is set, in the order in which they are put back after it.
    pub(super) fn taken_along(&self) -> Vec<Self> {
        if !self.is_of_every_ipv6_interface() {
            return Vec::new();
        }
        ipv6_interfaces().filter(|name| name.as_str() != EVERY_INTERFACE).map(Self::Ipv6Forwarding).collect()
    }

    /// The settings of router advertisements that stop to mean what they say when this one is set: the kernel then forgets what it learned by
    /// advertisements and heeds no more of them, so that a host loses its own way out.
    pub(super) fn obscured(&self) -> Vec<Self> {
        if !self.is_of_every_ipv6_interface() {
            return Vec::new();
        }
        // The kernel asks each interface's own; what a new one begins with would stay with it when this is put back.
        let is_one = |name: &DeviceName| ![EVERY_INTERFACE, NEW_INTERFACE, LOOPBACK].contains(&name.as_str());
        ipv6_interfaces().filter(is_one).map(Self::Ipv6AcceptRa).collect()
    }

    fn is_of_every_ipv6_interface(&self) -> bool {
        matches!(self, Self::Ipv6Forwarding(interface) if interface.as_str() == EVERY_INTERFACE)
    }
}

/// The interfaces that have settings of IPv6, and the two words that stand for all and for new ones.
fn ipv6_interfaces() -> impl Iterator<Item = DeviceName> {
    let folder = std::fs::read_dir(PathBuf::from(ROOT).join("net/ipv6/conf"));
    folder.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_settings_have_a_name() {
        for text in [
            "net/ipv4/conf/eth0.7/forwarding",
            "net/ipv6/conf/all/forwarding",
            "net/ipv6/conf/eth0/accept_ra",
            "net/ipv4/conf/all/src_valid_mark",
        ] {
            assert_eq!(text.parse::<Sysctl>().unwrap().to_string(), text);
        }
        for text in [
            "kernel/core_pattern",
            "net/ipv4/conf/../../kernel/core_pattern",
            "net/ipv4/conf/../forwarding",
            "net/ipv4/conf//forwarding",
            "net/ipv4/conf/eth0/rp_filter",
            "/net/ipv4/conf/eth0/forwarding",
        ] {
            assert_eq!(text.parse::<Sysctl>(), Err(NoSuchSysctl), "{text}");
        }
    }
}
