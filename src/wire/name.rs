//! Names of networks and nodes: one lower-case LDH label (RFC 1123 §2.1), so that no name can inject anything anywhere.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use std::io;
use std::str::FromStr;

/// Longest network name, so that `p2p-NAME` can be shortened into a device name and `NAME.internal` stays short.
pub const MAX_NETWORK_NAME_LEN: usize = 32;
/// Longest node name: one DNS label (RFC 1035 §2.3.4).
pub const MAX_NODE_NAME_LEN: usize = 63;

/// A network's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetworkName(String);

/// A node's name in its network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize)]
pub struct NodeName(String);

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing at all.
    #[error("a name has at least one character")]
    Empty,
    /// Longer than the kind of name allows.
    #[error("a name of this kind has at most {0} characters")]
    TooLong(usize),
    /// Something else than lower-case letters, digits and hyphens.
    #[error("a name consists of lower-case letters a-z, digits and hyphens")]
    BadCharacter,
    /// A hyphen at either end.
    #[error("a name neither begins nor ends with a hyphen")]
    OuterHyphen,
}

impl NetworkName {
    /// Lends the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodeName {
    /// Lends the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Makes a name out of a host's: its first label, lower-cased, every other character a hyphen. `None` when nothing is left.
    pub fn from_host_name(host: &str) -> Option<Self> {
        let label = host.trim().split('.').next()?;
        let mapped: String =
            label.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        let cut: String = mapped.trim_matches('-').chars().take(MAX_NODE_NAME_LEN).collect();
        cut.trim_end_matches('-').parse().ok()
    }
}

impl FromStr for NetworkName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        check_label(text, MAX_NETWORK_NAME_LEN).map(|()| Self(text.to_owned()))
    }
}

impl FromStr for NodeName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        check_label(text, MAX_NODE_NAME_LEN).map(|()| Self(text.to_owned()))
    }
}

/// Reads a string and refuses one that is no name.
impl BorshDeserialize for NodeName {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let text = String::deserialize_reader(reader)?;
        text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks one label: lower-case letters, digits, inner hyphens, 1 to `max_len` bytes.
fn check_label(text: &str, max_len: usize) -> Result<(), BadName> {
    if text.is_empty() {
        return Err(BadName::Empty);
    }
    if text.len() > max_len {
        return Err(BadName::TooLong(max_len));
    }
    if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Err(BadName::BadCharacter);
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(BadName::OuterHyphen);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_labels_are_names() {
        assert!("a".parse::<NodeName>().is_ok());
        assert!("web-01".parse::<NodeName>().is_ok());
        for (text, error) in [
            ("", BadName::Empty),
            ("Web", BadName::BadCharacter),
            ("a.b", BadName::BadCharacter),
            ("../etc", BadName::BadCharacter),
            ("a b", BadName::BadCharacter),
            ("ä", BadName::BadCharacter),
            ("-a", BadName::OuterHyphen),
            ("a-", BadName::OuterHyphen),
        ] {
            assert_eq!(text.parse::<NodeName>(), Err(error), "{text:?}");
        }
        assert_eq!("n".repeat(33).parse::<NetworkName>(), Err(BadName::TooLong(32)));
        assert!("n".repeat(63).parse::<NodeName>().is_ok());
        assert_eq!("n".repeat(64).parse::<NodeName>(), Err(BadName::TooLong(63)));
    }

    #[test]
    fn a_host_name_becomes_a_node_name() {
        let name = |host| NodeName::from_host_name(host).map(|name| name.to_string());
        assert_eq!(name("Lap_top.example.org\n").as_deref(), Some("lap-top"));
        assert_eq!(name("___"), None);
        assert_eq!(name(""), None);
        assert_eq!(name(&format!("{}-x", "a".repeat(62))).map(|name| name.len()), Some(62));
    }
}
