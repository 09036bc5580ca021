//! Names of network interfaces, fit for the kernel, for a ruleset and for a person's eyes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A network interface's name: 1 to 15 bytes (`IFNAMSIZ` less the zero), printable, without `/` and without any sign that means
/// something to a shell or to nft.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

/// Text that is no interface name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an interface name has 1 to 15 letters, digits, hyphens, underscores or dots")]
pub struct NotADeviceName;

impl DeviceName {
    /// Lends the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for DeviceName {
    type Err = NotADeviceName;

    fn from_str(text: &str) -> Result<Self, NotADeviceName> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !(1..=15).contains(&text.len()) || !is_plain || text == "." || text == ".." {
            return Err(NotADeviceName);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for DeviceName {
    type Error = NotADeviceName;

    fn try_from(text: String) -> Result<Self, NotADeviceName> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_are_short_and_plain() {
        for name in ["p2p-lab", "a", "eth0.12", "abcdefghijklmno"] {
            assert!(name.parse::<DeviceName>().is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "a%d", "a\"b", "eth*", "abcdefghijklmnop", "ä"] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }
}
