//! Labels: the only text that reaches the state, so that no name can smuggle markup, control characters or look-alikes anywhere.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;
use std::str::FromStr;

/// The longest label, in bytes (RFC 1035 §2.3.4).
pub const MAX_LABEL_LEN: usize = 63;
/// The longest name of a network, in bytes: short enough for `p2p-NET` style device and zone names.
pub const MAX_NETWORK_NAME_LEN: usize = 32;
/// Names that people trust by sight: only a signer gives them.
pub const RESERVED_NAMES: [&str; 6] = ["www", "mail", "gateway", "dns", "router", "relay"];

/// One label of lower-case letters, digits and inner hyphens, 1 to 63 bytes (RFC 952, RFC 1123 §2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// Text that is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 63 lower-case letters, digits and inner hyphens")]
pub struct NotALabel;

impl Label {
    /// Lends the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether only a signer may give this name.
    pub fn is_reserved(&self) -> bool {
        RESERVED_NAMES.contains(&self.as_str())
    }
}

impl FromStr for Label {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, NotALabel> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let sized = (1..=MAX_LABEL_LEN).contains(&text.len());
        let hyphens_inside = !text.starts_with('-') && !text.ends_with('-');
        if sized && hyphens_inside && text.bytes().all(inner) { Ok(Self(text.to_owned())) } else { Err(NotALabel) }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl BorshSerialize for Label {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.0.serialize(writer)
    }
}

/// Reads a string and refuses one that is no label.
impl BorshDeserialize for Label {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let text = String::deserialize_reader(reader)?;
        text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_ldh_labels_are_names() {
        for good in ["a", "0", "web-1", "xn--bcher-kva", &"a".repeat(63)] {
            assert_eq!(good.parse::<Label>().map(|label| label.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", "a\n", "\u{202e}a", "$(id)", &"a".repeat(64)] {
            assert_eq!(bad.parse::<Label>(), Err(NotALabel), "{bad:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_label_do_not_decode() {
        let bytes = borsh::to_vec("Evil<script>").unwrap();
        assert!(borsh::from_slice::<Label>(&bytes).is_err());
    }
}
