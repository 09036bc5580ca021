//! The node as the control API shows it: plain values become the documented JSON types.

use super::api::types::{
    Authorization, BadBlock, Invite, LedgerRole, LedgerStatus, Member as MemberView, PathKind, Peer, PeerPath,
    PeerSession, VerifyReport,
};
use super::failure::{ErrorCode, Failure};
use crate::crypto::hash::Digest;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::Ledger;
use crate::ledger::engine::{Verification, VerifyError};
use crate::ledger::name::Label;
use crate::ledger::state::Tenure;
use crate::node::Node;
use crate::node::status::{PeerStatus, Way};
use crate::policy::Policy;
use crate::policy::rule::{Rule, Selector};
use crate::time::Now;
use rand_core::CryptoRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The fewest digits by which a transaction or an invite may be named.
const MIN_DIGITS: usize = 4;

/// Blocks that one step of a verification replays.
const VERIFY_STEP: usize = 256;

/// The path that a way is, or none.
pub fn path(way: Option<Way>) -> PeerPath {
    match way {
        Some(Way::Direct(endpoint)) => PeerPath { kind: PathKind::Direct, endpoint: Some(endpoint), relay: None },
        Some(Way::Relayed(relay)) => PeerPath { kind: PathKind::Relay, endpoint: None, relay: Some(relay) },
        Some(Way::Stream(relay)) => PeerPath { kind: PathKind::Tls, endpoint: None, relay: Some(relay) },
        None => PeerPath { kind: PathKind::None, endpoint: None, relay: None },
    }
}

/// The other members by name, and the ways to them.
pub fn peers<R: CryptoRng>(node: &Node<R>, now: Now) -> Vec<Peer> {
    let mut peers: Vec<_> = node.peers(now).into_iter().map(peer).collect();
    peers.sort_by(|left, right| left.name.cmp(&right.name));
    peers
}

/// Another member, and the way to it.
fn peer(status: PeerStatus) -> Peer {
    Peer {
        id: status.member.id.to_string(),
        name: status.member.name,
        addresses: status.member.addresses,
        tags: status.member.tags,
        authorization: Authorization::Member,
        seen_seconds: status.seen.map(|seen| seen.as_secs()),
        path: path(status.way),
        rtt_ms: status.rtt.map(milliseconds),
        session: status.session.map(|session| PeerSession {
            cipher: session.cipher.name().to_owned(),
            post_quantum: true,
            age_seconds: session.age.as_secs(),
        }),
        tx_bytes: status.tx_bytes,
        rx_bytes: status.rx_bytes,
    }
}

/// A duration in milliseconds, to the microsecond.
pub fn milliseconds(span: Duration) -> f64 {
    let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// Who is behind the keys on the ledger, members and those who were.
pub struct Names<'l> {
    ledger: &'l Ledger,
    resting: Resting,
}

/// Names that rest: the last one that each member gave up, by a revocation or another name.
#[derive(Clone)]
pub struct Resting(Arc<BTreeMap<NodeId, Label>>);

impl Resting {
    /// Reads them all from a ledger.
    pub fn new(ledger: &Ledger) -> Self {
        Self::of(ledger.state().names())
    }

    fn of(names: impl IntoIterator<Item = (Label, Tenure)>) -> Self {
        let resting = names.into_iter().filter_map(|(name, tenure)| match tenure {
            Tenure::Resting { last, until } => Some((until, last, name)),
            Tenure::Held(_) => None,
        });
        let mut resting: Vec<_> = resting.collect();
        // Of several, the one that rests longest stays: it was given up last.
        resting.sort_by_key(|(until, ..)| *until);
        Self(Arc::new(resting.into_iter().map(|(_, last, name)| (last, name)).collect()))
    }
}

impl<'l> Names<'l> {
    /// Reads the names that rest.
    pub fn new(ledger: &'l Ledger) -> Self {
        Self::with(ledger, Resting::new(ledger))
    }

    /// Takes the names that rest from an earlier look.
    pub fn with(ledger: &'l Ledger, resting: Resting) -> Self {
        Self { ledger, resting }
    }

    /// The name of a member, or the one that a former member had lately.
    pub fn of(&self, id: &NodeId) -> Option<String> {
        let record = self.ledger.state().member(id);
        record.map(|record| record.name.to_string()).or_else(|| self.resting.0.get(id).map(ToString::to_string))
    }

    /// A rule as it would be typed.
    pub fn rule(&self, rule: &Rule) -> String {
        let end = |selector: &Selector| match selector {
            Selector::Any => "*".to_owned(),
            Selector::Member(id) => self.of(id).unwrap_or_else(|| id.to_string()),
            Selector::Tag(tag) => format!("tag:{tag}"),
            Selector::Prefix(prefix) => prefix.to_string(),
        };
        let (source, destination) = (end(rule.source()), end(rule.destination()));
        format!("{} {source} {destination}{}{}", rule.action(), rule.ports(), rule.protocol())
    }

    /// A key as people know it: by its member's name, else by its digits.
    pub fn key(&self, key: &VerifyingKey) -> String {
        self.of(&NodeId(key.0)).unwrap_or_else(|| key.to_string())
    }
}

/// Somebody whom the ledger knows, with what it knows of the admission.
pub fn member(names: &Names<'_>, policy: &Policy, id: &NodeId) -> MemberView {
    let record = names.ledger.state().member(id);
    let in_force = policy.member(id);
    MemberView {
        id: id.to_string(),
        name: names.of(id).unwrap_or_default(),
        addresses: in_force.map(|member| member.addresses.clone()).unwrap_or_default(),
        tags: in_force.map(|member| member.tags.clone()).unwrap_or_default(),
        // A revocation on sight leaves the record in the state until its block.
        authorization: if in_force.is_some() { Authorization::Member } else { Authorization::Revoked },
        admitted_height: record.as_ref().map(|record| record.admitted_height.0),
        admitted_by: record.map(|record| names.key(&record.admitted_by)),
    }
}

/// Everybody the ledger knows: members, then those who were revoked.
pub fn members<R: CryptoRng>(node: &Node<R>) -> Vec<MemberView> {
    let (names, policy) = (Names::new(node.ledger()), node.policy());
    let mut members: Vec<_> = policy.members().map(|one| member(&names, policy, &one.id)).collect();
    members.sort_by(|left, right| left.name.cmp(&right.name));
    members.extend(policy.revoked().filter(|id| policy.member(id).is_none()).map(|id| member(&names, policy, id)));
    members
}

/// The ledger at a glance.
pub fn ledger_status<R: CryptoRng>(node: &Node<R>, now: Now) -> LedgerStatus {
    let ledger = node.ledger();
    let head = ledger.head();
    let is_validator = node.policy().has_validator(&node.id());
    let validators = ledger.state().validators().as_slice().len();
    LedgerStatus {
        height: head.map_or(0, |head| head.height().0),
        hash: head.map(|head| head.id.0.to_string()).unwrap_or_default(),
        epoch: head.map_or(0, |head| head.header.epoch.into()),
        role: if is_validator { LedgerRole::Validator } else { LedgerRole::Full },
        validators: u32::try_from(validators).unwrap_or(u32::MAX),
        is_final: ledger.halted().is_none() && head.is_some(),
        age_seconds: node.ledger_age(now).map(|age| age.as_secs()),
        pending: ledger.pending_count() as u64,
        halted: node.ledger_trouble(),
    }
}

/// Credentials that can still admit.
pub fn invites(ledger: &Ledger) -> Vec<Invite> {
    let names = Names::new(ledger);
    let credentials = ledger.state().credentials();
    credentials
        .into_iter()
        .map(|(hash, record)| Invite {
            credential: hash.to_string(),
            name: record.name.map(|name| name.to_string()),
            tags: record.tags.iter().map(ToString::to_string).collect(),
            uses_left: record.uses,
            expires: record.expires.0 / 1000,
            author: names.key(&record.issuer),
        })
        .collect()
}

/// Replays the stored chain from its beginning.
pub fn verify_all(ledger: &Ledger) -> VerifyReport {
    let mut verification = Verification::default();
    loop {
        if let Some(report) = verify_step(&mut verification, ledger, VERIFY_STEP) {
            return report;
        }
    }
}

/// Replays up to `count` more blocks of the stored chain. Returns the report at its end, or at the first bad block.
pub fn verify_step(verification: &mut Verification, ledger: &Ledger, count: usize) -> Option<VerifyReport> {
    match verification.step(ledger, count) {
        Ok(None) => None,
        Ok(Some(head)) => Some(VerifyReport { from: 0, to: head.0, blocks: head.0 + 1, bad: None }),
        Err(error) => Some(broken(verification, &error)),
    }
}

fn broken(verification: &Verification, error: &VerifyError) -> VerifyReport {
    let good = verification.verified().map(|height| height.0);
    let next = good.map_or(0, |height| height + 1);
    let bad = BadBlock { height: error.height().map_or(next, |height| height.0), reason: error.to_string() };
    VerifyReport { from: 0, to: good.unwrap_or(0), blocks: next, bad: Some(bad) }
}

/// Finds the credential whose hash is `digits` or begins so.
///
/// # Errors
/// Not found, or more than one.
pub fn credential(ledger: &Ledger, digits: &str) -> Result<Digest, Failure> {
    let wanted = id_digits(digits)?;
    let credentials = ledger.state().credentials();
    let mut found = credentials.into_iter().map(|(hash, _)| hash).filter(|hash| hash.to_string().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(hash), None) => Ok(hash),
        (Some(_), Some(_)) => {
            Err(Failure::new(ErrorCode::Usage, format!("more than one invitation begins with {digits}")))
        }
        (None, _) => Err(Failure::new(ErrorCode::NotFound, format!("there is no invitation {digits}"))
            .hint("`p2plus invites` lists those that can still admit")),
    }
}

/// The first digits of an id: enough of them, so that nothing and a typing error find nothing.
///
/// # Errors
/// Usage.
pub fn id_digits(text: &str) -> Result<String, Failure> {
    let are_digits = (MIN_DIGITS..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if are_digits {
        return Ok(text.to_ascii_lowercase());
    }
    let message = format!("{text:?} is no id: type {MIN_DIGITS} to 64 of its hexadecimal digits");
    Err(Failure::new(ErrorCode::Usage, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMillis;

    #[test]
    fn a_former_member_is_called_by_the_name_that_it_gave_up_last() {
        let last = NodeId([1; 32]);
        let names = [("zoe", 1), ("ann", 3), ("mia", 2)];
        let tenures =
            names.map(|(name, until)| (name.parse().unwrap(), Tenure::Resting { last, until: UnixMillis(until) }));
        assert_eq!(Resting::of(tenures).0[&last].as_str(), "ann");
    }
}
