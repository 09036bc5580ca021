//! What can be asked and ordered about who may reach whom, and the documented JSON of the answers.

use super::request::Finality;
use super::types::Submitted;
use serde::{Deserialize, Serialize};

/// Adds rules and removes some.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePolicy {
    /// Rules as they are typed: `allow SRC DST[:PORTS][/tcp|/udp|/icmp]`.
    #[serde(default)]
    pub add: Vec<String>,
    /// The numbers of rules.
    #[serde(default)]
    pub remove: Vec<u64>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Makes these the rules of the network, all of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy {
    /// Rules as they are typed.
    pub rules: Vec<String>,
    /// What must hold under them, else nothing is changed: `allow|deny SRC DST:PORT[/udp]`.
    #[serde(default)]
    pub checks: Vec<String>,
    /// Say what would change, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// Asks whether expectations hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckPolicy {
    /// Rules as they are typed; `None` takes those in force.
    #[serde(default)]
    pub rules: Option<Vec<String>>,
    /// `allow|deny SRC DST:PORT[/udp]`.
    pub checks: Vec<String>,
}

/// Asks whether one may reach another, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// A member or an address.
    pub source: String,
    /// The same with a port: `DST:PORT[/tcp|/udp]`, or `DST/icmp`.
    pub destination: String,
}

/// Gives a member tags and takes some from it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// A name, an overlay address or an identity.
    pub peer: String,
    /// Tags that it gets.
    #[serde(default)]
    pub add: Vec<String>,
    /// Tags that it loses.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Waiting.
    #[serde(default)]
    pub finality: Finality,
}

/// What a rule says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// A rule, and who stands behind it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleView {
    /// Its number; `null` while its transaction is not final.
    pub number: Option<u64>,
    /// As it would be typed.
    pub rule: String,
    /// What it says.
    pub action: Verdict,
    /// The transaction that made it, 64 hexadecimal digits.
    pub tx: Option<String>,
    /// The height of its block.
    pub height: Option<u64>,
    /// The signers by whose authority it was made: names of members, else keys.
    pub signers: Vec<String>,
}

impl RuleView {
    /// A rule that no block holds yet.
    pub fn not_final(action: Verdict) -> Self {
        Self { number: None, rule: String::new(), action, tx: None, height: None, signers: Vec::new() }
    }
}

/// What an order changed, or would change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyChanged {
    /// New rules.
    pub added: Vec<RuleView>,
    /// Rules that are gone.
    pub removed: Vec<RuleView>,
    /// The transactions that did it; none when nothing was to do or nothing was to be done.
    pub transactions: Vec<Submitted>,
}

/// The answer to [`Explain`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether the conversation may begin.
    pub verdict: Verdict,
    /// The rule that says so, as it would be typed; `null` when no rule covers it.
    pub rule: Option<String>,
    /// The rule's number.
    pub number: Option<u64>,
    /// The transaction that made the rule.
    pub tx: Option<String>,
    /// The height of its block.
    pub height: Option<u64>,
    /// The signers by whose authority it was made.
    pub signers: Vec<String>,
    /// The same in words.
    pub reason: String,
}

/// The answer to [`CheckPolicy`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// One for each, in their order.
    pub checks: Vec<CheckOutcome>,
}

/// What became of an expectation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// The expectation.
    pub check: String,
    /// What the rules say.
    pub verdict: Verdict,
    /// Whether that is what was expected.
    pub holds: bool,
}
