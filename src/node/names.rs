//! What a user types for a member: a name, an overlay address, an identity or its first digits.

use crate::crypto::identity::NodeId;
use crate::policy::{Member, Policy};
use std::net::IpAddr;

/// The fewest digits by which an identity may be named: below that, typing errors find somebody.
pub const MIN_DIGITS: usize = 6;

/// Why a text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No member has this name, address or identity.
    #[error("no member is called {0}")]
    Unknown(String),
    /// More than one identity begins like that.
    #[error("more than one member's identity begins with {0}")]
    Ambiguous(String),
}

/// Finds the member that `text` names.
///
/// # Errors
/// [`NameError`] when it is nobody or more than one.
pub fn resolve<'p>(policy: &'p Policy, text: &str) -> Result<&'p Member, NameError> {
    let unknown = || NameError::Unknown(text.to_owned());
    if let Ok(address) = text.parse::<IpAddr>() {
        return policy.owner(&address).ok_or_else(unknown);
    }
    if let Ok(id) = text.parse::<NodeId>() {
        return policy.member(&id).ok_or_else(unknown);
    }
    if let Some(member) = policy.members().find(|member| member.name.eq_ignore_ascii_case(text)) {
        return Ok(member);
    }
    if text.len() < MIN_DIGITS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(unknown());
    }
    let digits = text.to_ascii_lowercase();
    let mut found = policy.members().filter(|member| member.id.to_string().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member),
        (Some(_), Some(_)) => Err(NameError::Ambiguous(text.to_owned())),
        (None, _) => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::member;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn name_address_identity_and_digits_find_the_same_member() {
        let policy = Policy::new([member(1), member(0xab)], BTreeMap::new(), BTreeSet::new());
        let expected = NodeId([0xab; 32]);
        for text in ["node-171", "NODE-171", "10.64.0.171", "abababab", &"ab".repeat(32)] {
            assert_eq!(resolve(&policy, text).map(|member| member.id), Ok(expected), "{text}");
        }
        for text in ["nobody", "10.64.0.9", "abab", "cdcdcdcd", ""] {
            assert!(resolve(&policy, text).is_err(), "{text}");
        }
    }

    #[test]
    fn digits_that_fit_two_name_nobody() {
        let mut twin = member(0xab);
        twin.id.0[31] = 1;
        let policy = Policy::new([member(0xab), twin], BTreeMap::new(), BTreeSet::new());
        assert_eq!(resolve(&policy, "abababab").err(), Some(NameError::Ambiguous("abababab".into())));
    }
}
