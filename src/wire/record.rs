//! Names and records of a network's DNS zone, as the ledger holds them and the resolver answers them.
//!
//! Owns their forms and their borsh bytes, so that no other text than these reaches the state, a resolver or a screen. Refuses to know who
//! may set them, and the zone's own name: every name here is relative to it.

use super::name::NetworkName;
use crate::crypto::identity::NodeId;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;
use std::str::FromStr;

/// The longest name, in bytes of its text: with the longest zone behind it, it fits into the 255 bytes of RFC 1035 §2.3.4.
pub const MAX_NAME_LEN: usize = 127;
/// The most labels of a name: a service, its protocol, a host of a member, and room.
pub const MAX_LABELS: usize = 8;
/// The longest label (RFC 1035 §2.3.4).
const MAX_LABEL_LEN: usize = 63;
/// The most strings of a TXT record.
pub const MAX_STRINGS: usize = 8;
/// The longest string of a TXT record (RFC 1035 §3.3).
pub const MAX_STRING_LEN: usize = 255;
/// The most bytes of all strings of a TXT record: a DKIM key of 4096 bits takes 750.
pub const MAX_TEXT_LEN: usize = 1024;
/// The longest name of a zone, in bytes.
pub const MAX_ZONE_LEN: usize = 100;
/// The top-level domain that is nobody's for good.
const PRIVATE_TOP: &str = "internal";
/// Top-level domains with which hosts do something of their own.
const SPECIAL_TOPS: [&str; 3] = ["local", "localhost", "arpa"];
/// How the zone itself is written, as in zone files (RFC 1035 §5.1).
const APEX: &str = "@";

/// A name in the zone: lower-case LDH labels with dots between, each of which may begin with an underscore. Empty: the zone itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(String);

/// Text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// A label that nobody's resolver would take.
    #[error(
        "a name is lower-case letters, digits and inner hyphens, with dots between; `@` is the network's zone itself"
    )]
    Label,
    /// Longer than [`MAX_NAME_LEN`], or more than [`MAX_LABELS`].
    #[error("a name has at most {MAX_LABELS} labels and {MAX_NAME_LEN} characters")]
    TooLong,
}

impl RecordName {
    /// The zone itself.
    pub const fn apex() -> Self {
        Self(String::new())
    }

    /// Lends the text; empty for the zone itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether it is the zone itself.
    pub fn is_apex(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the labels, from the last one, which is directly below the zone.
    pub fn labels_from_top(&self) -> impl Iterator<Item = &str> {
        self.0.rsplit('.').filter(|label| !label.is_empty())
    }

    /// The label directly below the zone: whose holder the name belongs to.
    pub fn top(&self) -> Option<&str> {
        self.labels_from_top().next()
    }

    /// Says whether it can be a host's: no label begins with an underscore (RFC 952, RFC 1123 §2.1).
    pub fn is_host(&self) -> bool {
        self.labels_from_top().all(|label| !label.starts_with('_'))
    }

    /// Says whether it begins with a service and a protocol (RFC 2782).
    pub fn is_service(&self) -> bool {
        let mut labels = self.0.split('.');
        [labels.next(), labels.next()].iter().all(|label| label.is_some_and(|label| label.starts_with('_')))
    }

    /// Makes a name of labels from the last one.
    ///
    /// # Errors
    /// [`BadName`].
    pub fn from_top<'l>(labels: impl DoubleEndedIterator<Item = &'l str>) -> Result<Self, BadName> {
        Self::strictly(&labels.rev().collect::<Vec<_>>().join("."))
    }

    /// Reads the one text that a name has in the ledger.
    fn strictly(text: &str) -> Result<Self, BadName> {
        if text.is_empty() {
            return Ok(Self::apex());
        }
        if text.len() > MAX_NAME_LEN || text.split('.').count() > MAX_LABELS {
            return Err(BadName::TooLong);
        }
        if text.split('.').all(is_label) { Ok(Self(text.to_owned())) } else { Err(BadName::Label) }
    }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let plain = text.strip_prefix('_').unwrap_or(text);
    let hyphens_inside = !plain.starts_with('-') && !plain.ends_with('-');
    !plain.is_empty() && text.len() <= MAX_LABEL_LEN && hyphens_inside && plain.bytes().all(inner)
}

/// Reads what a person types: `@` or a name.
impl FromStr for RecordName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text {
            APEX => Ok(Self::apex()),
            "" => Err(BadName::Label),
            text => Self::strictly(text),
        }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_apex() { APEX } else { &self.0 })
    }
}

impl fmt::Debug for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BorshSerialize for RecordName {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.0.serialize(writer)
    }
}

/// Reads a string and refuses one that is no name.
impl BorshDeserialize for RecordName {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Self::strictly(&String::deserialize_reader(reader)?).map_err(invalid)
    }
}

/// The name of a zone: the suffix of all names of a network on this host, without a dot at its end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ZoneName(String);

/// Text that is no zone's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadZone {
    /// A label that nobody's resolver would take.
    #[error(
        "a zone is lower-case letters, digits and inner hyphens, with dots between, at most {MAX_ZONE_LEN} characters"
    )]
    Form,
    /// A zone that already means something on every host.
    #[error("`local`, `localhost`, `arpa` and what lies below them belong to others (RFC 6761, RFC 6762)")]
    Special,
}

impl ZoneName {
    /// The zone of a network unless another one is configured.
    pub fn of_network(network: &NetworkName) -> Self {
        Self(format!("{network}.{PRIVATE_TOP}"))
    }

    /// Lends the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Iterates over the labels from the last one.
    pub fn labels_from_top(&self) -> impl Iterator<Item = &str> {
        self.0.rsplit('.')
    }

    /// A name in this zone, as it is written in full.
    pub fn full(&self, name: &RecordName) -> String {
        if name.is_apex() { self.0.clone() } else { format!("{}.{}", name.as_str(), self.0) }
    }
}

impl FromStr for ZoneName {
    type Err = BadZone;

    fn from_str(text: &str) -> Result<Self, BadZone> {
        let is_plain = |label: &str| is_label(label) && !label.starts_with('_');
        if text.len() > MAX_ZONE_LEN || !text.split('.').all(is_plain) {
            return Err(BadZone::Form);
        }
        let top = text.rsplit('.').next().unwrap_or_default();
        if SPECIAL_TOPS.contains(&top) { Err(BadZone::Special) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an MX or SRV record points to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum Target {
    /// A member, under whatever name.
    Member(NodeId),
    /// A name of the zone that has addresses of its own.
    Name(RecordName),
}

/// The strings of a TXT record: printable ASCII, each at most [`MAX_STRING_LEN`] bytes, together at most [`MAX_TEXT_LEN`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize)]
pub struct Text(Vec<String>);

/// Strings that are no TXT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a TXT record has 1 to {MAX_STRINGS} strings of printable ASCII, each at most {MAX_STRING_LEN} bytes, together at most {MAX_TEXT_LEN}"
)]
pub struct BadText;

impl Text {
    /// Takes the strings of a record.
    ///
    /// # Errors
    /// [`BadText`].
    pub fn new(strings: Vec<String>) -> Result<Self, BadText> {
        let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        let is_fine = |string: &String| string.len() <= MAX_STRING_LEN && string.bytes().all(printable);
        let len: usize = strings.iter().map(String::len).sum();
        let counted = (1..=MAX_STRINGS).contains(&strings.len()) && len <= MAX_TEXT_LEN;
        if counted && strings.iter().all(is_fine) { Ok(Self(strings)) } else { Err(BadText) }
    }

    /// Lends the strings.
    pub fn strings(&self) -> &[String] {
        &self.0
    }
}

/// Reads strings and refuses those that are no record.
impl BorshDeserialize for Text {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        Self::new(Vec::deserialize_reader(reader)?).map_err(invalid)
    }
}

/// What a record says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum RecordData {
    /// A and AAAA: the addresses of a member.
    Address(NodeId),
    /// MX (RFC 1035 §3.3.9).
    Mail {
        /// The lowest is tried first.
        priority: u16,
        /// The mail server.
        target: Target,
    },
    /// SRV (RFC 2782).
    Service {
        /// The lowest is tried first.
        priority: u16,
        /// The share among those of one priority.
        weight: u16,
        /// Where the service listens.
        port: u16,
        /// The server.
        target: Target,
    },
    /// TXT (RFC 1035 §3.3.14).
    Text(Text),
}

/// What makes a record the one that it is: another one with the same mark takes its place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum RecordMark {
    /// The addresses of this member.
    Address(NodeId),
    /// The mail server.
    Mail(Target),
    /// The server and its port.
    Service(Target, u16),
    /// All of it.
    Text(Text),
}

/// The kind of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum RecordKind {
    /// A and AAAA.
    Address,
    /// MX.
    Mail,
    /// SRV.
    Service,
    /// TXT.
    Text,
}

impl RecordKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Address, Self::Mail, Self::Service, Self::Text];

    /// The word for it in commands and lists.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Mail => "mx",
            Self::Service => "srv",
            Self::Text => "txt",
        }
    }
}

impl RecordData {
    /// Returns its kind.
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Address(_) => RecordKind::Address,
            Self::Mail { .. } => RecordKind::Mail,
            Self::Service { .. } => RecordKind::Service,
            Self::Text(_) => RecordKind::Text,
        }
    }

    /// Returns what it points to.
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::Address(member) => Some(Target::Member(*member)),
            Self::Mail { target, .. } | Self::Service { target, .. } => Some(target.clone()),
            Self::Text(_) => None,
        }
    }

    /// Returns what makes it the record that it is.
    pub fn mark(&self) -> RecordMark {
        match self.clone() {
            Self::Address(member) => RecordMark::Address(member),
            Self::Mail { target, .. } => RecordMark::Mail(target),
            Self::Service { target, port, .. } => RecordMark::Service(target, port),
            Self::Text(text) => RecordMark::Text(text),
        }
    }
}

impl RecordMark {
    /// Returns the kind of the records that have it.
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Address(_) => RecordKind::Address,
            Self::Mail(_) => RecordKind::Mail,
            Self::Service(..) => RecordKind::Service,
            Self::Text(_) => RecordKind::Text,
        }
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_ldh_names_and_underscored_ones_are_names() {
        let eight = ["a"; 8].join(".");
        for good in ["a", "mail.ada", "_xmpp-server._tcp", "default._domainkey.ada", "xn--bcher-kva", &eight] {
            assert_eq!(good.parse::<RecordName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "-a", "a-.b", "A", "a b", "ä", "a\n", "__a", "_", "a_b", "*", "*.a", "$(id)",
            "a\0",
        ] {
            assert_eq!(bad.parse::<RecordName>(), Err(BadName::Label), "{bad:?}");
        }
        assert_eq!(["a"; 9].join(".").parse::<RecordName>(), Err(BadName::TooLong));
        assert_eq!(
            [&"a".repeat(63), &"b".repeat(63), "c"].map(|label| label as &str).join(".").parse::<RecordName>(),
            Err(BadName::TooLong)
        );
        assert_eq!("a".repeat(64).parse::<RecordName>(), Err(BadName::Label));
    }

    #[test]
    fn a_name_knows_whose_it_is_and_what_it_can_hold() {
        let name = |text: &str| text.parse::<RecordName>().unwrap();
        assert!(name("@").is_apex() && name("@").top().is_none() && name("@").is_host());
        assert_eq!(name("www.shop.ada").labels_from_top().collect::<Vec<_>>(), ["ada", "shop", "www"]);
        assert!(name("_sip._udp.ada").is_service() && !name("_sip._udp.ada").is_host());
        for other in ["_sip.ada", "a._sip._udp", "_sip", "ada"] {
            assert!(!name(other).is_service(), "{other}");
        }
        assert_eq!(RecordName::from_top(["ada", "www"].into_iter()), Ok(name("www.ada")));
    }

    #[test]
    fn bytes_that_are_no_name_or_text_do_not_decode() {
        let decode = |text: &str| borsh::from_slice::<RecordName>(&borsh::to_vec(text).unwrap());
        assert_eq!(decode("").unwrap(), RecordName::apex());
        assert!(decode("@").is_err() && decode("Evil<script>").is_err());
        let strings = |strings: &[&str]| borsh::from_slice::<Text>(&borsh::to_vec(strings).unwrap());
        assert!(strings(&["v=spf1 -all"]).is_ok() && strings(&["", "b"]).is_ok());
        let long = "a".repeat(256);
        for bad in [&[] as &[&str], &["a\n"], &["ä"], &["\x1b[2J"], &[&long], &["a"; 9], &[&long[1..]; 5]] {
            assert!(strings(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_zone_is_a_plain_suffix_of_nobody_elses() {
        let zone = ZoneName::of_network(&"lab".parse().unwrap());
        assert_eq!(zone.as_str().parse(), Ok(zone.clone()));
        assert_eq!(zone.full(&"www.ada".parse().unwrap()), "www.ada.lab.internal");
        assert_eq!(zone.full(&RecordName::apex()), "lab.internal");
        for special in ["lab.local", "local", "10.in-addr.arpa", "localhost"] {
            assert_eq!(special.parse::<ZoneName>(), Err(BadZone::Special), "{special}");
        }
        for bad in ["", ".", "lab.", "_x.lab", "Lab", "a..b", "lab internal", &"a.".repeat(60)] {
            assert_eq!(bad.parse::<ZoneName>(), Err(BadZone::Form), "{bad:?}");
        }
        let (longest, suffix) = (MAX_NAME_LEN, MAX_ZONE_LEN);
        assert!(longest + 1 + suffix + 2 <= 255, "a length before the first label, and the root's behind the last");
    }

    #[test]
    fn a_record_is_another_one_when_what_it_is_for_differs() {
        let target = || Target::Member(NodeId([1; 32]));
        let mail = |priority| RecordData::Mail { priority, target: target() };
        assert_eq!(mail(10).mark(), mail(20).mark());
        let service = |weight, port| RecordData::Service { priority: 0, weight, port, target: target() };
        assert_eq!(service(1, 5222).mark(), service(2, 5222).mark());
        assert_ne!(service(1, 5222).mark(), service(1, 5223).mark());
        assert_eq!(service(1, 5222).mark().kind(), RecordKind::Service);
    }
}
