//! What hosts of one link say to each other so that they find each other: ARP, IPv6 neighbour and router discovery, DHCP's answers, and
//! who listens to which multicast group. Read from untrusted frames, and two answers written.
//!
//! Owns the layouts: RFC 826, RFC 4861 §4, RFC 2131 §4.1, RFC 8415 §7.2, RFC 3376 §4, RFC 3810 §5. Refuses to know who may say what.

use super::frame::{ETHERTYPE_ARP, Frame, MacAddress};
use super::inner::{Fragment, InnerPacket};
use etherparse::PacketBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PROTOCOL_IGMP: u8 = 2;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// Where DHCP's clients listen, of IPv4 and of IPv6: who sends there speaks as a server.
const DHCP_CLIENT_PORT: u16 = 68;
const DHCPV6_CLIENT_PORT: u16 = 546;

/// Bytes of an ARP packet for IPv4 over Ethernet.
const ARP_LEN: usize = 28;
/// What such a packet begins with: Ethernet, IPv4, and the lengths of their addresses.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const MLD2_REPORT: u8 = 143;

const IGMP_QUERY: u8 = 0x11;
const IGMP1_REPORT: u8 = 0x12;
const IGMP2_REPORT: u8 = 0x16;
const IGMP2_LEAVE: u8 = 0x17;
const IGMP3_REPORT: u8 = 0x22;

const OPTION_SOURCE_LINK: u8 = 1;
const OPTION_TARGET_LINK: u8 = 2;
/// Bytes of a neighbour message in front of its options.
const NEIGHBOUR_LEN: usize = 24;
/// What messages of discovery leave with: who sees less knows that they crossed a router (RFC 4861 §7.1).
const HOP_LIMIT: u8 = 255;
/// Flags of an advertisement that answers who asked, and replaces what they believed (RFC 4861 §4.4).
const SOLICITED_OVERRIDE: u8 = 0x60;

/// What a frame says to the link itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkMessage {
    /// Nothing: it is traffic of hosts.
    None,
    /// Who has an address, or who asks for one.
    Neighbour(Neighbour),
    /// A host asks for routers.
    RouterSolicitation {
        /// The Ethernet address that it says it has.
        link: Option<MacAddress>,
    },
    /// A router says that it is one, or that another one is better.
    Router {
        /// The Ethernet address that it says it has.
        link: Option<MacAddress>,
    },
    /// A DHCP server says something to a client.
    DhcpServer,
    /// A router asks who listens.
    Query {
        /// Of IPv6.
        is_v6: bool,
        /// To any group: what is not answered is no more.
        is_general: bool,
    },
    /// A host says which groups it listens to, and which no more.
    Report {
        /// Of IPv6.
        is_v6: bool,
        /// The groups' Ethernet addresses; `true` for who listens.
        groups: Vec<(MacAddress, bool)>,
    },
}

/// A statement or question about the Ethernet address of an IP address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// What it is.
    pub kind: NeighbourKind,
    /// The IP address of who speaks; `None` where it has none yet, and only looks whether anybody has the target.
    pub sender: Option<IpAddr>,
    /// The Ethernet address that the speaker says it, or the target of an advertisement, has.
    pub link: Option<MacAddress>,
    /// The address that is asked for or advertised.
    pub target: IpAddr,
}

/// Which way a [`Neighbour`] goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeighbourKind {
    /// Who has the target?
    Question,
    /// The target has this Ethernet address.
    Statement,
}

impl Neighbour {
    /// Which IP address it says `link` has.
    pub fn claimed(&self) -> Option<IpAddr> {
        match self.kind {
            NeighbourKind::Question => self.sender,
            NeighbourKind::Statement => Some(self.target),
        }
    }

    /// Says whether it wants to know rather than to tell: a question for an address that is not the asker's own.
    pub fn wants_answer(&self) -> bool {
        self.kind == NeighbourKind::Question && self.sender.is_some_and(|sender| sender != self.target)
    }
}

/// A message that is none, or whose meaning hides from who looks at one frame. The sender's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkMessageError {
    /// The packet in the frame is none.
    #[error("the packet in the frame is malformed")]
    BadPacket,
    /// The message is cut short, or contradicts itself.
    #[error("the message is malformed")]
    Malformed,
    /// A message of discovery in fragments, which nobody may send (RFC 6980), or a first fragment without its protocol's header (RFC 7112).
    #[error("the message hides in fragments")]
    Hidden,
}

impl LinkMessage {
    /// Reads what `bytes`, with this link header, say to the link.
    ///
    /// # Errors
    /// [`LinkMessageError`].
    pub fn of(frame: &Frame, bytes: &[u8]) -> Result<Self, LinkMessageError> {
        Self::read(frame, bytes).map(|(message, _)| message)
    }

    /// Reads the same, and the IP packet that the frame carries, if it does.
    ///
    /// # Errors
    /// [`LinkMessageError`].
    pub fn read(frame: &Frame, bytes: &[u8]) -> Result<(Self, Option<InnerPacket>), LinkMessageError> {
        if frame.ethertype == ETHERTYPE_ARP {
            return arp(&bytes[frame.link_len..]).map(|message| (message, None));
        }
        let Some(packet) = frame.ip(bytes) else { return Ok((Self::None, None)) };
        let packet = packet.map_err(|_| LinkMessageError::BadPacket)?;
        let inner = InnerPacket::parse(packet).map_err(|_| LinkMessageError::BadPacket)?;
        if matches!(inner.fragment, Fragment::Later(_)) {
            return Ok((Self::None, Some(inner)));
        }
        let body = &packet[inner.payload_offset..];
        let message = match (inner.protocol, inner.source) {
            (PROTOCOL_UDP, _) => udp(&inner, body)?,
            (PROTOCOL_IGMP, IpAddr::V4(_)) => igmp(&inner, body)?,
            (PROTOCOL_ICMPV6, IpAddr::V6(source)) => icmpv6(&inner, source, body)?,
            _ => Self::None,
        };
        Ok((message, Some(inner)))
    }
}

fn arp(packet: &[u8]) -> Result<LinkMessage, LinkMessageError> {
    let packet = packet.first_chunk::<ARP_LEN>().ok_or(LinkMessageError::Malformed)?;
    let (kind, rest) = packet.split_at(ARP_OF_IPV4.len());
    let operation = word(rest, 0);
    if kind != ARP_OF_IPV4 || !matches!(operation, ARP_REQUEST | ARP_REPLY) {
        return Err(LinkMessageError::Malformed);
    }
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let (sender, target) = (address(14), address(24));
    let link = Some(mac(&packet[8..14]));
    let sender_known = (!sender.is_unspecified()).then_some(IpAddr::V4(sender));
    Ok(LinkMessage::Neighbour(match operation {
        ARP_REQUEST => {
            Neighbour { kind: NeighbourKind::Question, sender: sender_known, link, target: IpAddr::V4(target) }
        }
        // The sender of a reply is what it states; the target is whom it tells.
        _ => Neighbour { kind: NeighbourKind::Statement, sender: sender_known, link, target: IpAddr::V4(sender) },
    }))
}

fn udp(inner: &InnerPacket, body: &[u8]) -> Result<LinkMessage, LinkMessageError> {
    let Some(destination) = body.get(2..4) else { return Err(LinkMessageError::Hidden) };
    let client_port = if inner.source.is_ipv4() { DHCP_CLIENT_PORT } else { DHCPV6_CLIENT_PORT };
    let is_dhcp = word(destination, 0) == client_port;
    Ok(if is_dhcp { LinkMessage::DhcpServer } else { LinkMessage::None })
}

fn igmp(inner: &InnerPacket, body: &[u8]) -> Result<LinkMessage, LinkMessageError> {
    let body = whole(inner, body)?;
    let [kind, ..] = *body else { return Err(LinkMessageError::Malformed) };
    let group = |at: usize| body.get(at..at + 4).ok_or(LinkMessageError::Malformed);
    let one = |listens| Ok(LinkMessage::Report { is_v6: false, groups: vec![(group_v4(group(4)?), listens)] });
    match kind {
        IGMP_QUERY => Ok(LinkMessage::Query { is_v6: false, is_general: *group(4)? == [0; 4] }),
        IGMP1_REPORT | IGMP2_REPORT => one(true),
        IGMP2_LEAVE => one(false),
        IGMP3_REPORT => Ok(LinkMessage::Report { is_v6: false, groups: records(body, 4, group_v4)? }),
        _ => Ok(LinkMessage::None),
    }
}

fn icmpv6(inner: &InnerPacket, source: Ipv6Addr, body: &[u8]) -> Result<LinkMessage, LinkMessageError> {
    let [kind, ..] = *body else { return Err(LinkMessageError::Hidden) };
    if !matches!(kind, MLD_QUERY..=REDIRECT | MLD2_REPORT) {
        return Ok(LinkMessage::None);
    }
    let body = whole(inner, body)?;
    let group = || body.get(8..24).ok_or(LinkMessageError::Malformed);
    let one = |listens| Ok(LinkMessage::Report { is_v6: true, groups: vec![(group_v6(group()?), listens)] });
    match kind {
        MLD_QUERY => Ok(LinkMessage::Query { is_v6: true, is_general: *group()? == [0; 16] }),
        MLD_REPORT => one(true),
        MLD_DONE => one(false),
        MLD2_REPORT => Ok(LinkMessage::Report { is_v6: true, groups: records(body, 16, group_v6)? }),
        ROUTER_SOLICITATION => Ok(LinkMessage::RouterSolicitation { link: link_option(body, 8, OPTION_SOURCE_LINK)? }),
        ROUTER_ADVERTISEMENT => Ok(LinkMessage::Router { link: link_option(body, 16, OPTION_SOURCE_LINK)? }),
        REDIRECT => Ok(LinkMessage::Router { link: None }),
        _ => {
            let target: [u8; 16] =
                body.get(8..24).and_then(|it| it.try_into().ok()).ok_or(LinkMessageError::Malformed)?;
            let is_question = kind == NEIGHBOUR_SOLICITATION;
            let option = if is_question { OPTION_SOURCE_LINK } else { OPTION_TARGET_LINK };
            Ok(LinkMessage::Neighbour(Neighbour {
                kind: if is_question { NeighbourKind::Question } else { NeighbourKind::Statement },
                sender: (!source.is_unspecified()).then_some(IpAddr::V6(source)),
                link: link_option(body, NEIGHBOUR_LEN, option)?,
                target: IpAddr::V6(target.into()),
            }))
        }
    }
}

/// Refuses a message in fragments: what is looked at here is not what its receiver would put together.
fn whole<'b>(inner: &InnerPacket, body: &'b [u8]) -> Result<&'b [u8], LinkMessageError> {
    if inner.fragment == Fragment::Whole { Ok(body) } else { Err(LinkMessageError::Hidden) }
}

/// Finds the Ethernet address in the options behind `offset` bytes of a message of discovery.
fn link_option(body: &[u8], offset: usize, wanted: u8) -> Result<Option<MacAddress>, LinkMessageError> {
    let mut rest = body.get(offset..).ok_or(LinkMessageError::Malformed)?;
    let mut found = None;
    while let [kind, units, ..] = *rest {
        // An option of no length would never end (RFC 4861 §4.6).
        let len = usize::from(units) * 8;
        let (option, behind) = rest.split_at_checked(len).filter(|_| len > 0).ok_or(LinkMessageError::Malformed)?;
        if kind == wanted {
            // Two of them could say two things to two readers.
            if found.replace(mac(&option[2..8])).is_some() {
                return Err(LinkMessageError::Malformed);
            }
        }
        rest = behind;
    }
    if rest.is_empty() { Ok(found) } else { Err(LinkMessageError::Malformed) }
}

/// Reads the group records of a report of IGMPv3 or MLDv2, whose groups have `group_len` bytes.
fn records(
    body: &[u8],
    group_len: usize,
    group: impl Fn(&[u8]) -> MacAddress,
) -> Result<Vec<(MacAddress, bool)>, LinkMessageError> {
    let (header, mut rest) = body.split_at_checked(8).ok_or(LinkMessageError::Malformed)?;
    let mut groups = Vec::new();
    for _ in 0..word(header, 6) {
        let (record, behind) = rest.split_at_checked(4 + group_len).ok_or(LinkMessageError::Malformed)?;
        let sources = usize::from(word(record, 2));
        let behind_len = sources * group_len + usize::from(record[1]) * 4;
        rest = behind.get(behind_len..).ok_or(LinkMessageError::Malformed)?;
        // Includes nothing: modes 1 and 3 name the only sources that are wanted (RFC 3376 §4.2.12); 6 takes some away.
        let listens = match record[0] {
            1 | 3 => sources > 0,
            2 | 4 | 5 => true,
            _ => continue,
        };
        groups.push((group(&record[4..]), listens));
    }
    Ok(groups)
}

/// The Ethernet address of a group of IPv4 (RFC 1112 §6.4).
fn group_v4(group: &[u8]) -> MacAddress {
    MacAddress([0x01, 0x00, 0x5e, group[1] & 0x7f, group[2], group[3]])
}

/// The Ethernet address of a group of IPv6 (RFC 2464 §7).
fn group_v6(group: &[u8]) -> MacAddress {
    MacAddress([0x33, 0x33, group[12], group[13], group[14], group[15]])
}

fn mac(bytes: &[u8]) -> MacAddress {
    let mut address = [0; 6];
    address.copy_from_slice(&bytes[..6]);
    MacAddress(address)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Writes the answer of the owner of `link` to the question in `bytes`: a frame as the owner would send it, tags included. `None` when the
/// question names nobody to answer.
pub fn answer(frame: &Frame, bytes: &[u8], question: &Neighbour, link: MacAddress) -> Option<Vec<u8>> {
    let asker = question.sender?;
    let mut answer = Vec::with_capacity(frame.link_len + 72);
    answer.extend(frame.source.0);
    answer.extend(link.0);
    answer.extend(&bytes[12..frame.link_len]);
    match (question.target, asker) {
        (IpAddr::V4(target), IpAddr::V4(asker)) => {
            answer.extend(ARP_OF_IPV4);
            answer.extend(ARP_REPLY.to_be_bytes());
            answer.extend(link.0);
            answer.extend(target.octets());
            answer.extend(frame.source.0);
            answer.extend(asker.octets());
        }
        (IpAddr::V6(target), IpAddr::V6(asker)) => {
            let body = [&target.octets()[..], &[OPTION_TARGET_LINK, 1], &link.0].concat();
            let packet = PacketBuilder::ipv6(target.octets(), asker.octets(), HOP_LIMIT);
            let message = packet.icmpv6_raw(NEIGHBOUR_ADVERTISEMENT, 0, [SOLICITED_OVERRIDE, 0, 0, 0]);
            message.write(&mut answer, &body).ok()?;
        }
        _ => return None,
    }
    Some(answer)
}

#[cfg(test)]
#[path = "neighbour/tests.rs"]
mod tests;
