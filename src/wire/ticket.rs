//! The invite ticket: everything a new node needs to find a network and to be let in, as one line of text.
//!
//! ```text
//! text     "p2plus1" | payload | check        bech32m characters (BIP-173), 5 bits each, padded with zero bits
//! check    first 4 bytes of domain_hash(payload)
//! payload  version u8 | length u16 of the body | body
//! body     name_len u8 | name | network_id 32 | network_secret 32 | height u64 | hash 32 | credential 32
//!          | peer_count u8 | { id 32 | transport_key 32 | endpoint_count u8 | { 4 or 6 | IP 4 or 16 | port u16 }* }*
//! ```
//! Integers are little-endian. A bech32m checksum is made for at most 90 characters; four bytes of BLAKE3 have no such limit
//! and let one in 2^32 garbled tickets pass, whatever the length. One text per value: decoding refuses whatever encoding would not write.
//! Whoever holds a ticket can join with it, unless its credential is zeros: then a signer has to admit who comes. The type is neither `Debug` nor `Clone`, and its secrets are zeroized.

use super::name::NetworkName;
use crate::crypto::exchange::TransportKey;
use crate::crypto::hash::{Digest, domain_hash};
use crate::crypto::identity::NodeId;
use crate::crypto::secret::Secret;
use bech32::{ByteIterExt, Fe32, Fe32IterExt};
use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use zeroize::Zeroizing;

/// Most bootstrap peers in a ticket: the ones asked for are 3, and a full ticket still fits a QR code.
pub const MAX_PEERS: usize = 8;
/// Most endpoints of one bootstrap peer.
pub const MAX_ENDPOINTS: usize = 8;

const PREFIX: &str = "p2plus1";
const VERSION: u8 = 1;
const CHECK_LEN: usize = 4;
/// Version and length, before the body.
const HEAD_LEN: usize = 3;
/// Longest payload: all fields at their bounds.
const MAX_PAYLOAD_LEN: usize =
    HEAD_LEN + 33 + 32 + 32 + 8 + 32 + 32 + 1 + MAX_PEERS * (64 + 1 + MAX_ENDPOINTS * (1 + 16 + 2));
/// Longest text of this version.
const MAX_TEXT_LEN: usize = PREFIX.len() + ((MAX_PAYLOAD_LEN + CHECK_LEN) * 8).div_ceil(5);
const CHECK_DOMAIN: &str = "P2Plus/1 ticket check";

/// An invitation into one network.
pub struct Ticket {
    /// The network's name.
    pub network: NetworkName,
    /// The hash of the genesis header.
    pub network_id: Digest,
    /// The secret that hides the network's nodes from scanners.
    pub network_secret: Secret<32>,
    /// The block that the joiner's chain must contain.
    pub checkpoint: Checkpoint,
    /// The seed of the key that signs `Join`; zeros as bytes, none here, for a ticket that leads to the network and lets nobody in.
    pub credential: Option<Secret<32>>,
    /// Members to ask first, 1 to [`MAX_PEERS`].
    pub peers: Vec<BootstrapPeer>,
}

/// One block, named by height and hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Its height.
    pub height: u64,
    /// Its header's hash.
    pub hash: Digest,
}

/// A member that a joiner can reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootstrapPeer {
    /// Its identity.
    pub id: NodeId,
    /// The key of its handshakes.
    pub transport_key: TransportKey,
    /// Where it listens, 1 to [`MAX_ENDPOINTS`].
    pub endpoints: Vec<SocketAddr>,
}

/// Why a text is no ticket of this version, or why a ticket has no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin with `p2plus1`, or mixes upper and lower case.
    #[error("this is not a ticket: a ticket is one line that begins with \"p2plus1\"")]
    NotATicket,
    /// A character that no ticket contains, or a check that fails: a typing or copying error.
    #[error("the ticket is garbled: at least one character is wrong")]
    Garbled,
    /// The end is missing.
    #[error("the ticket is truncated: its end is missing")]
    Truncated,
    /// More text than the longest ticket, or than this one says it has.
    #[error("the ticket is too long: something was appended to it")]
    TooLong,
    /// Made by a newer version of this program.
    #[error("the ticket has format {0}, this program knows format {VERSION}: it is too old for this network")]
    NewerVersion(u8),
    /// A value out of its bounds, in a ticket that is otherwise whole.
    #[error("the ticket has a bad {0}")]
    BadField(&'static str),
}

impl Ticket {
    /// Writes the ticket as one line of lower-case text.
    ///
    /// # Errors
    /// [`TicketError::BadField`] for too many or no peers or endpoints, or an endpoint that nobody can reach.
    pub fn encode(&self) -> Result<Zeroizing<String>, TicketError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PAYLOAD_LEN + CHECK_LEN));
        bytes.extend([VERSION, 0, 0]);
        self.write_body(&mut bytes)?;
        let body_len = u16::try_from(bytes.len() - HEAD_LEN).map_err(|_| TicketError::TooLong)?;
        bytes[1..HEAD_LEN].copy_from_slice(&body_len.to_le_bytes());
        let check = check_of(&bytes);
        bytes.extend(check);
        Ok(to_text(&bytes))
    }

    /// Reads a ticket from text, in lower or upper case, with or without white space around it.
    ///
    /// # Errors
    /// Every other text than one that [`Ticket::encode`] writes; the variant says what is wrong.
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        let (bytes, is_canonical) = to_bytes(text.trim())?;
        let Some((payload, check)) = bytes.split_last_chunk::<CHECK_LEN>() else {
            return Err(TicketError::Truncated);
        };
        let [version, low, high, body @ ..] = payload else {
            return Err(TicketError::Truncated);
        };
        let (version, body_len) = (*version, usize::from(u16::from_le_bytes([*low, *high])));
        if !is_canonical || check_of(payload) != *check {
            // The length is only a hint for the message: nothing behind a failed check is believed.
            return Err(match body.len().cmp(&body_len) {
                Ordering::Less if version == VERSION => TicketError::Truncated,
                Ordering::Greater if version == VERSION => TicketError::TooLong,
                _ => TicketError::Garbled,
            });
        }
        if version > VERSION {
            return Err(TicketError::NewerVersion(version));
        }
        if version != VERSION || body.len() != body_len {
            return Err(TicketError::BadField("length"));
        }
        let mut reader = Reader(body);
        let ticket = Self::read_body(&mut reader)?;
        if reader.0.is_empty() { Ok(ticket) } else { Err(TicketError::BadField("length")) }
    }

    fn write_body(&self, out: &mut Vec<u8>) -> Result<(), TicketError> {
        let name = self.network.as_str().as_bytes();
        out.push(u8::try_from(name.len()).map_err(|_| TicketError::BadField("network name"))?);
        out.extend(name);
        out.extend(self.network_id.0);
        out.extend(self.network_secret.expose());
        out.extend(self.checkpoint.height.to_le_bytes());
        out.extend(self.checkpoint.hash.0);
        out.extend(self.credential.as_ref().map_or(&[0; 32], Secret::expose));
        out.push(count("number of peers", self.peers.len(), MAX_PEERS)?);
        for peer in &self.peers {
            out.extend(peer.id.0);
            out.extend(peer.transport_key.0);
            out.push(count("number of endpoints", peer.endpoints.len(), MAX_ENDPOINTS)?);
            peer.endpoints.iter().try_for_each(|endpoint| write_endpoint(out, *endpoint))?;
        }
        Ok(())
    }

    fn read_body(reader: &mut Reader<'_>) -> Result<Self, TicketError> {
        let name_len = usize::from(reader.byte()?);
        let name = std::str::from_utf8(reader.take(name_len)?).ok().and_then(|name| name.parse().ok());
        let network = name.ok_or(TicketError::BadField("network name"))?;
        let network_id = Digest(reader.array()?);
        let network_secret = Secret::new(reader.array()?);
        let checkpoint = Checkpoint { height: u64::from_le_bytes(reader.array()?), hash: Digest(reader.array()?) };
        let credential = Some(Secret::new(reader.array()?)).filter(|seed| *seed != Secret::new([0; 32]));
        let peer_count = count("number of peers", usize::from(reader.byte()?), MAX_PEERS)?;
        let peers = (0..peer_count).map(|_| read_peer(reader)).collect::<Result<_, _>>()?;
        Ok(Self { network, network_id, network_secret, checkpoint, credential, peers })
    }
}

fn read_peer(reader: &mut Reader<'_>) -> Result<BootstrapPeer, TicketError> {
    let id = NodeId(reader.array()?);
    let transport_key = TransportKey(reader.array()?);
    let endpoint_count = count("number of endpoints", usize::from(reader.byte()?), MAX_ENDPOINTS)?;
    let endpoints = (0..endpoint_count).map(|_| read_endpoint(reader)).collect::<Result<_, _>>()?;
    Ok(BootstrapPeer { id, transport_key, endpoints })
}

fn write_endpoint(out: &mut Vec<u8>, endpoint: SocketAddr) -> Result<(), TicketError> {
    check_endpoint(endpoint)?;
    match endpoint.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.extend(endpoint.port().to_le_bytes());
    Ok(())
}

fn read_endpoint(reader: &mut Reader<'_>) -> Result<SocketAddr, TicketError> {
    let ip = match reader.byte()? {
        4 => IpAddr::from(Ipv4Addr::from(reader.array::<4>()?)),
        6 => IpAddr::from(Ipv6Addr::from(reader.array::<16>()?)),
        _ => return Err(TicketError::BadField("endpoint")),
    };
    let endpoint = SocketAddr::new(ip, u16::from_le_bytes(reader.array()?));
    check_endpoint(endpoint).map(|()| endpoint)
}

/// Says whether a datagram can be sent there at all. Loopback is somebody's test and allowed.
pub fn is_reachable(endpoint: SocketAddr) -> bool {
    let ip = endpoint.ip();
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    endpoint.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

fn check_endpoint(endpoint: SocketAddr) -> Result<(), TicketError> {
    if is_reachable(endpoint) { Ok(()) } else { Err(TicketError::BadField("endpoint")) }
}

/// Checks a count against 1 and `max`.
fn count(field: &'static str, count: usize, max: usize) -> Result<u8, TicketError> {
    match u8::try_from(count) {
        Ok(byte) if (1..=max).contains(&count) => Ok(byte),
        _ => Err(TicketError::BadField(field)),
    }
}

fn check_of(payload: &[u8]) -> [u8; CHECK_LEN] {
    let Digest(hash) = domain_hash(CHECK_DOMAIN, &[payload]);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn to_text(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT_LEN));
    text.push_str(PREFIX);
    text.extend(bytes.iter().copied().bytes_to_fes().map(Fe32::to_char));
    text
}

/// Turns characters into bytes, and says whether [`to_text`] would write these characters for them.
fn to_bytes(text: &str) -> Result<(Zeroizing<Vec<u8>>, bool), TicketError> {
    let has_prefix = text.get(..PREFIX.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX));
    let is_mixed = text.bytes().any(|c| c.is_ascii_lowercase()) && text.bytes().any(|c| c.is_ascii_uppercase());
    if !has_prefix || is_mixed {
        return Err(TicketError::NotATicket);
    }
    if text.len() > MAX_TEXT_LEN {
        return Err(TicketError::TooLong);
    }
    let characters = &text[PREFIX.len()..];
    if characters.chars().any(|c| Fe32::from_char(c).is_err()) {
        return Err(TicketError::Garbled);
    }
    let mut digits = characters.chars().filter_map(|c| Fe32::from_char(c).ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(characters.len() * 5 / 8));
    bytes.extend(digits.clone().fes_to_bytes());
    // BIP-173: the bits after the last whole byte are fewer than 5, and zero.
    let spare_bits = characters.len() * 5 % 8;
    let last = digits.next_back().map_or(0, Fe32::to_u8);
    Ok((bytes, spare_bits < 5 && last & ((1 << spare_bits) - 1) == 0))
}

/// Takes fields off the front of a body.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize) -> Result<&'b [u8], TicketError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(TicketError::BadField("length"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TicketError> {
        self.take(N)?.try_into().map_err(|_| TicketError::BadField("length"))
    }

    fn byte(&mut self) -> Result<u8, TicketError> {
        self.array::<1>().map(|[byte]| byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    fn peer(rng: &mut ChaCha20Rng, endpoints: &[&str]) -> BootstrapPeer {
        let (mut id, mut key) = ([0; 32], [0; 32]);
        rng.fill_bytes(&mut id);
        rng.fill_bytes(&mut key);
        let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
        BootstrapPeer { id: NodeId(id), transport_key: TransportKey(key), endpoints }
    }

    fn ticket(seed: u64) -> Ticket {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let peers = vec![
            peer(&mut rng, &["10.77.1.2:4647", "[2001:db8::1]:4647"]),
            peer(&mut rng, &["[fe80::7]:1"]),
            peer(&mut rng, &["192.0.2.1:65535"]),
        ];
        Ticket {
            network: "lab".parse().unwrap(),
            network_id: Digest([7; 32]),
            network_secret: Secret::random(&mut rng),
            checkpoint: Checkpoint { height: 0x0102_0304_0506_0708, hash: Digest([9; 32]) },
            credential: Some(Secret::random(&mut rng)),
            peers,
        }
    }

    /// The text of a payload with a true check, whatever the payload says.
    fn sealed(payload: &[u8]) -> Zeroizing<String> {
        to_text(&[payload, &check_of(payload)].concat())
    }

    fn payload(text: &str) -> Vec<u8> {
        let (bytes, _) = to_bytes(text).unwrap();
        bytes[..bytes.len() - CHECK_LEN].to_vec()
    }

    #[test]
    fn a_ticket_survives_text_in_either_case_and_with_white_space_around_it() {
        let ticket = ticket(1);
        let text = ticket.encode().unwrap();
        assert!(text.starts_with("p2plus1") && *text == text.to_lowercase());
        for text in [text.to_string(), text.to_uppercase(), format!(" \t{}\r\n", *text)] {
            let decoded = Ticket::decode(&text).unwrap();
            assert_eq!(decoded.network, ticket.network);
            assert_eq!(decoded.network_id, ticket.network_id);
            assert!(decoded.network_secret == ticket.network_secret);
            assert_eq!(decoded.checkpoint, ticket.checkpoint);
            assert!(decoded.credential == ticket.credential);
            assert_eq!(decoded.peers, ticket.peers);
        }
    }

    /// Tickets of five lengths, so that each number of padding bits occurs.
    fn texts(seed: u64) -> impl Iterator<Item = Zeroizing<String>> {
        (1..=5).map(move |len| Ticket { network: "n".repeat(len).parse().unwrap(), ..ticket(seed) }.encode().unwrap())
    }

    #[test]
    fn every_change_of_one_character_is_detected() {
        for text in texts(2) {
            for position in 0..text.len() {
                for replacement in (0x20..0x7f).map(char::from).chain(['\n', 'é']) {
                    if text[position..].starts_with(replacement) {
                        continue;
                    }
                    let changed = format!("{}{replacement}{}", &text[..position], &text[position + 1..]);
                    let error = Ticket::decode(&changed).err();
                    assert!(error.is_some(), "{replacement:?} at {position}");
                    assert!(
                        !matches!(error, Some(TicketError::NewerVersion(_) | TicketError::BadField(_))),
                        "{error:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_swap_insertion_and_deletion_is_detected() {
        let text = ticket(3).encode().unwrap();
        for position in PREFIX.len()..text.len() {
            let (before, after) = text.split_at(position);
            assert!(Ticket::decode(&format!("{before}q{after}")).is_err());
            assert!(Ticket::decode(&format!("{before}{}", &after[1..])).is_err());
            let swapped: String =
                before.chars().chain(after.chars().take(2).collect::<Vec<_>>().into_iter().rev()).collect();
            let swapped = swapped + after.get(2..).unwrap_or_default();
            assert!(swapped == *text || Ticket::decode(&swapped).is_err());
        }
    }

    #[test]
    fn every_truncation_is_detected_and_named() {
        for text in texts(4) {
            for len in 0..text.len() {
                let expected = if len < PREFIX.len() { TicketError::NotATicket } else { TicketError::Truncated };
                assert_eq!(Ticket::decode(&text[..len]).err(), Some(expected), "{len} of {} characters", text.len());
            }
        }
    }

    #[test]
    fn an_appendix_is_too_long() {
        let text = ticket(5).encode().unwrap();
        for appendix in ["qq", "p2plus", &"q".repeat(5000)] {
            assert!(Ticket::decode(&format!("{}{appendix}", *text)).is_err());
        }
        assert_eq!(Ticket::decode(&format!("{}qqqq", *text)).err(), Some(TicketError::TooLong));
        assert_eq!(Ticket::decode(&format!("p2plus1{}", "q".repeat(1 << 20))).err(), Some(TicketError::TooLong));
    }

    #[test]
    fn a_newer_format_is_named_and_only_behind_a_true_check() {
        let mut payload = payload(&ticket(6).encode().unwrap());
        payload[0] = 2;
        assert_eq!(Ticket::decode(&sealed(&payload)).err(), Some(TicketError::NewerVersion(2)));
        payload[0] = 0;
        assert_eq!(Ticket::decode(&sealed(&payload)).err(), Some(TicketError::BadField("length")));
    }

    #[test]
    fn fields_out_of_bounds_are_refused_in_both_directions() {
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let refused = |peers: Vec<BootstrapPeer>| Ticket { peers, ..ticket(7) }.encode().err();
        assert_eq!(refused(vec![]), Some(TicketError::BadField("number of peers")));
        assert_eq!(refused(vec![peer(&mut rng, &["1.1.1.1:1"]); 9]), Some(TicketError::BadField("number of peers")));
        assert_eq!(refused(vec![peer(&mut rng, &[])]), Some(TicketError::BadField("number of endpoints")));
        assert_eq!(
            refused(vec![peer(&mut rng, &["1.1.1.1:1"; 9])]),
            Some(TicketError::BadField("number of endpoints"))
        );
        for endpoint in ["1.1.1.1:0", "0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:1"] {
            assert_eq!(
                refused(vec![peer(&mut rng, &[endpoint])]),
                Some(TicketError::BadField("endpoint")),
                "{endpoint}"
            );
        }

        let whole = payload(&ticket(7).encode().unwrap());
        for (offset, value, field) in [(HEAD_LEN, 0, "network name"), (HEAD_LEN + 1, b'L', "network name")] {
            let mut bad = whole.clone();
            bad[offset] = value;
            assert_eq!(Ticket::decode(&sealed(&bad)).err(), Some(TicketError::BadField(field)));
        }
        // One byte behind the last field, which the length includes.
        let mut long = whole.clone();
        long.push(0);
        long[1] += 1;
        assert_eq!(Ticket::decode(&sealed(&long)).err(), Some(TicketError::BadField("length")));
        // A port of zero, the last field.
        let mut bad = whole.clone();
        let end = bad.len();
        bad[end - 2..].fill(0);
        assert_eq!(Ticket::decode(&sealed(&bad)).err(), Some(TicketError::BadField("endpoint")));
    }

    #[test]
    fn a_sealed_body_of_any_length_is_refused_without_a_panic() {
        let whole = payload(&ticket(8).encode().unwrap());
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            if len >= HEAD_LEN {
                let body_len = u16::try_from(len - HEAD_LEN).unwrap();
                cut[1..HEAD_LEN].copy_from_slice(&body_len.to_le_bytes());
            }
            assert!(Ticket::decode(&sealed(&cut)).is_err());
        }
    }

    #[test]
    fn the_fullest_ticket_has_exactly_the_longest_text() {
        let mut rng = ChaCha20Rng::seed_from_u64(9);
        let peers = (0..MAX_PEERS).map(|_| peer(&mut rng, &["[2001:db8::1]:9"; MAX_ENDPOINTS])).collect();
        let ticket = Ticket { network: "n".repeat(32).parse().unwrap(), peers, ..ticket(9) };
        let text = ticket.encode().unwrap();
        assert_eq!(text.len(), MAX_TEXT_LEN);
        assert!(Ticket::decode(&text).is_ok());
    }

    #[test]
    fn the_format_is_frozen() {
        let zeros = || Secret::new([0; 32]);
        let peers = vec![BootstrapPeer {
            id: NodeId([1; 32]),
            transport_key: TransportKey([2; 32]),
            endpoints: vec!["10.0.0.1:4647".parse().unwrap()],
        }];
        let checkpoint = Checkpoint { height: 5, hash: Digest([4; 32]) };
        let network = "home".parse().unwrap();
        let network_id = Digest([3; 32]);
        let ticket = Ticket { network, network_id, network_secret: zeros(), checkpoint, credential: None, peers };
        assert_eq!(*ticket.encode().unwrap(), FROZEN);
    }

    const FROZEN: &str = "p2plus1q8tqqprgdakk2qcrqvpsxqcrqvpsxqcrqvpsxqcrqvpsxqcrqvpsxqcrqvpsxqcrqqqqqqqqqqqqqqqqqqqqqqqqqqqqq\
        qqqqqqqqqqqqqqqqqqqqqqq2qqqqqqqqqqqqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqqqqqqqqqqqqqq\
        qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqsyqszqgpqy\
        qszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqspqs9qqqqpyufxnj028u";
}
