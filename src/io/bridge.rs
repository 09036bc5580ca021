//! Ports of the kernel's bridges: a segment's TAP beside the network interface of a site.
//!
//! Small steps that the caller can undo one by one. Refuses to know which segment a TAP belongs to, and to take an interface away from
//! the host: one that has addresses is no port, because the host would lose them.

use super::network::{Interface, Network, NetworkError, error};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{LinkBridge, LinkUnspec};
use serde::{Deserialize, Serialize};

/// A network card that became a port of a bridge that was made for it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridging {
    /// The bridge.
    pub bridge: String,
    /// The network card.
    pub card: String,
    /// Whether the card was switched on before.
    pub card_was_on: bool,
}

/// Why an interface cannot be bridged. All but `Network` are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// There is no such interface.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// It is a port of something else.
    #[error("the interface {0} is a port of another bridge already")]
    IsPort(String),
    /// It has addresses, which the host would lose.
    #[error("the interface {0} has addresses of this host, which it would lose as a port of a bridge")]
    HasAddresses(String),
    /// It can be no port: the loopback interface, or a tunnel without an Ethernet.
    #[error("the interface {0} carries no Ethernet frames")]
    NoEthernet(String),
    /// The kernel refused.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl Network {
    /// Finds an interface by its name.
    ///
    /// # Errors
    /// [`BridgeError::NoInterface`].
    pub fn interface_named(&mut self, name: &str) -> Result<Interface, BridgeError> {
        let found = self.interfaces()?.into_iter().find(|interface| interface.name == name);
        found.ok_or_else(|| BridgeError::NoInterface(name.to_owned()))
    }

    /// Checks that an interface which is no bridge can become a port of one.
    ///
    /// # Errors
    /// [`BridgeError`] names what is in the way.
    pub fn check_port(&mut self, interface: &Interface) -> Result<(), BridgeError> {
        let name = || interface.name.clone();
        if interface.is_loopback {
            return Err(BridgeError::NoEthernet(name()));
        }
        if interface.controller.is_some() {
            return Err(BridgeError::IsPort(name()));
        }
        let is_its = self.addresses()?.iter().any(|it| it.interface == interface.index && it.is_global);
        if is_its { Err(BridgeError::HasAddresses(name())) } else { Ok(()) }
    }

    /// Creates a bridge and switches it on; one of this name that exists is taken as it is.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn ensure_bridge(&mut self, name: &str) -> Result<Interface, BridgeError> {
        if let Ok(bridge) = self.interface_named(name) {
            return if bridge.is_bridge { Ok(bridge) } else { Err(BridgeError::IsPort(name.to_owned())) };
        }
        let message = RouteNetlinkMessage::NewLink(LinkBridge::new(name).build());
        let outcome = self.socket.change(message, NLM_F_CREATE | NLM_F_EXCL);
        outcome.map_err(|source| error(&format!("create the bridge {name}"))(source))?;
        self.interface_named(name)
    }

    /// Makes an interface a port of a bridge, and switches it on.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn add_port(&mut self, port: u32, bridge: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(port).controller(bridge).up();
        let outcome = self.socket.change(RouteNetlinkMessage::SetLink(message.build()), 0);
        outcome.map_err(|source| error(&format!("make interface {port} a port of the bridge {bridge}"))(source))
    }

    /// Makes an interface a port of nothing; one that is gone is fine.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn remove_port(&mut self, port: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(port).nocontroller().build();
        self.unless_gone(RouteNetlinkMessage::SetLink(message), &format!("take interface {port} out of its bridge"))
    }

    /// Takes a network card out of the bridge that was made for it, and removes the bridge unless it has other ports. Returns whether there
    /// was such a bridge.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn undo_bridging(&mut self, bridging: &Bridging) -> Result<bool, NetworkError> {
        let interfaces = self.interfaces()?;
        let named = |name: &str| interfaces.iter().find(|interface| interface.name == name);
        let Some(bridge) = named(&bridging.bridge).filter(|interface| interface.is_bridge) else { return Ok(false) };
        if let Some(card) = named(&bridging.card).filter(|card| card.controller == Some(bridge.index)) {
            self.remove_port(card.index)?;
            if !bridging.card_was_on {
                self.switch_off(card.index)?;
            }
        }
        // Another card of the same segment, or a port of the operator's.
        let is_needed =
            interfaces.iter().any(|port| port.controller == Some(bridge.index) && port.name != bridging.card);
        if is_needed { Ok(true) } else { self.remove_bridge(bridge.index).map(|()| true) }
    }

    fn switch_off(&mut self, interface: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(interface).down().build();
        self.unless_gone(RouteNetlinkMessage::SetLink(message), &format!("switch off interface {interface}"))
    }

    /// Removes a bridge; one that is gone is fine. Its ports stay, as ports of nothing.
    ///
    /// # Errors
    /// [`NetworkError`].
    fn remove_bridge(&mut self, bridge: u32) -> Result<(), NetworkError> {
        let mut message = LinkMessage::default();
        message.header.index = bridge;
        self.unless_gone(RouteNetlinkMessage::DelLink(message), &format!("remove the bridge {bridge}"))
    }

    fn unless_gone(&mut self, message: RouteNetlinkMessage, action: &str) -> Result<(), NetworkError> {
        match self.socket.change(message, 0) {
            Err(source) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            outcome => outcome.map_err(error(action)),
        }
    }
}
