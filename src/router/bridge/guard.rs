//! What not everybody may say to a link: where its router is, which address a host gets, whose an address is.

use crate::wire::drops::DropReason;
use crate::wire::frame::{Frame, MacAddress};
use crate::wire::neighbour::{LinkMessage, Neighbour};
use std::net::IpAddr;

/// Whose an IP address is, when its form says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// A node's, in the overlay: it is reached by routing, and on no segment.
    Overlay,
    /// That of the member's device with this address.
    Device(MacAddress),
}

/// Lets a frame's message through from who may say it. `is_gateway`: the sender may speak for routers and DHCP servers.
///
/// # Errors
/// The reason to drop it.
pub(super) fn check(
    frame: &Frame,
    message: &LinkMessage,
    is_gateway: bool,
    whose: impl Fn(IpAddr) -> Option<Owner>,
) -> Result<(), DropReason> {
    match message {
        LinkMessage::DhcpServer if !is_gateway => Err(DropReason::RogueDhcp),
        LinkMessage::Router { .. } if !is_gateway => Err(DropReason::RogueRouter),
        LinkMessage::Router { link } | LinkMessage::RouterSolicitation { link } => own_address(frame, *link),
        LinkMessage::Neighbour(neighbour) => {
            own_address(frame, neighbour.link).and_then(|()| own_claims(frame, neighbour, whose))
        }
        LinkMessage::None | LinkMessage::DhcpServer | LinkMessage::Query { .. } | LinkMessage::Report { .. } => Ok(()),
    }
}

/// The Ethernet address within a message is that of the frame: whoever tells another one redirects what is sent there.
fn own_address(frame: &Frame, link: Option<MacAddress>) -> Result<(), DropReason> {
    if link.is_none_or(|link| link == frame.source) { Ok(()) } else { Err(DropReason::SpoofedNeighbour) }
}

/// Nobody says of a node's address in the overlay, or of that which another member's device makes for itself, that it has it.
fn own_claims(frame: &Frame, neighbour: &Neighbour, whose: impl Fn(IpAddr) -> Option<Owner>) -> Result<(), DropReason> {
    let owners = [neighbour.claimed(), neighbour.sender].into_iter().flatten().filter_map(whose);
    let is_own = |owner: Owner| owner == Owner::Device(frame.source);
    if owners.into_iter().all(is_own) { Ok(()) } else { Err(DropReason::SpoofedNeighbour) }
}
