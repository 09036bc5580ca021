//! What members ask signers for: in each member's signed record, so that it reaches everybody as the record does, and ends with it.
//!
//! ```text
//!   advertise, without a signer's key ─► own record ─► gossip ─► everybody's list ─► a signer approves: a transaction
//!                                                                              └─► or refuses: in the signer's record
//! ```
//! Owns the list and what becomes of it. A request gives no right; what it leads to is on the ledger.

use super::{Node, NodeEvent};
use crate::crypto::hash::domain_hash;
use crate::crypto::identity::{NodeId, VerifyingKey};
use crate::ledger::TxId;
use crate::ledger::engine::SubmitError;
use crate::ledger::operation::{ExitApprove, Operation, RelayApprove, RouteApprove, Scope};
use crate::policy::relay::{BadRelay, DEFAULT_RELAY_CLASS};
use crate::policy::{Member, RelayTerms};
use crate::time::{Now, UnixMillis};
use crate::wire::control::{MAX_REFUSALS, MAX_REQUESTS, Request, RequestId, Wanted};
use crate::wire::endpoint::StaticEndpoints;
use rand_core::CryptoRng;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a request waits for a signer.
pub const REQUEST_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far the clock of who asks may be ahead.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(600);

/// A request as everybody sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub id: RequestId,
    /// Who asks.
    pub member: NodeId,
    /// For what, and since when.
    pub request: Request,
    /// What gives it.
    pub operation: Operation,
}

/// A member asks for as much as it may already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a member asks for at most {MAX_REQUESTS} things at a time")]
pub struct TooManyRequests;

/// What this node itself asks for and refuses.
#[derive(Default)]
pub(super) struct Requests {
    own: Vec<Request>,
    refused: Vec<RequestId>,
}

impl Requests {
    pub(super) fn new(own: Vec<Request>) -> Self {
        Self { own, refused: Vec::new() }
    }

    /// What this node's record says.
    pub(super) fn published(&self) -> (Vec<Request>, Vec<RequestId>) {
        (self.own.clone(), self.refused.clone())
    }
}

impl<R: CryptoRng> Node<R> {
    /// Says whether this node's key alone may give rights.
    pub fn gives_rights(&self) -> bool {
        let key = self.signing.identity.verifying_key();
        self.ledger.state().authorize(&[key], Scope::Rights).is_ok()
    }

    /// Asks the signers for something; once more for what was asked for already, so that it waits anew. A node is one relay: asked for
    /// elsewhere, it is not asked for any more where it was.
    ///
    /// # Errors
    /// [`TooManyRequests`].
    pub fn request(&mut self, now: Now, wanted: Wanted) -> Result<RequestId, TooManyRequests> {
        let is_relay = |wanted: &Wanted| matches!(wanted, Wanted::Relay { .. });
        self.requests
            .own
            .retain(|request| request.wanted != wanted && !(is_relay(&request.wanted) && is_relay(&wanted)));
        if self.requests.own.len() >= MAX_REQUESTS {
            return Err(TooManyRequests);
        }
        let request = Request { wanted, made: self.network_time(now) };
        self.requests.own.push(request);
        self.publish_requests(now);
        Ok(request_id(&self.own_id, &request))
    }

    /// Asks no more for what is meant. Says whether that was asked for.
    pub fn withdraw(&mut self, now: Now, is_meant: impl Fn(&Wanted) -> bool) -> bool {
        let count = self.requests.own.len();
        self.requests.own.retain(|request| !is_meant(&request.wanted));
        let is_news = self.requests.own.len() != count;
        if is_news {
            self.publish_requests(now);
        }
        is_news
    }

    /// Lists what waits for a signer, in the order of those who ask.
    pub fn asked(&self, now: Now) -> Vec<Asked> {
        let time = self.network_time(now);
        let mut asked = Vec::new();
        for member in self.policy.members() {
            let of_others = || self.gossip.record(&member.id, &self.policy).map(|record| record.requests.as_slice());
            let requests = if member.id == self.own_id { &self.requests.own } else { of_others().unwrap_or_default() };
            let waiting = requests.iter().filter(|request| waits(request, member, time));
            // What the ledger would refuse in any case is no request.
            asked.extend(waiting.filter_map(|request| {
                let operation = operation(member.id, request.wanted).ok()?;
                Some(Asked { id: request_id(&member.id, request), member: member.id, request: *request, operation })
            }));
        }
        asked.retain(|asked| !self.is_refused(&asked.id));
        asked
    }

    /// Gives what was asked for.
    ///
    /// # Errors
    /// [`SubmitError`] when the ledger refuses it.
    pub fn approve(&mut self, now: Now, asked: &Asked) -> Result<TxId, SubmitError> {
        self.order(now, vec![asked.operation.clone()])
    }

    /// Tells who asked, and everybody else, that it is refused: if this node's key may give rights.
    pub fn refuse(&mut self, now: Now, id: RequestId) {
        if self.requests.refused.len() >= MAX_REFUSALS {
            self.requests.refused.remove(0);
        }
        self.requests.refused.push(id);
        self.publish_requests(now);
    }

    /// Follows what the ledger gives and time takes: nobody is asked for what is there, or too long.
    pub(super) fn review_requests(&mut self, now: Now) {
        let (time, policy) = (self.network_time(now), &self.policy);
        let Some(own) = policy.member(&self.own_id) else { return };
        let count = self.requests.own.len();
        self.requests.own.retain(|request| waits(request, own, time));
        if self.requests.own.len() != count {
            self.publish_requests(now);
        }
    }

    /// Takes what a member that may give rights refuses of this node's requests.
    pub(super) fn take_refusals(&mut self, now: Now, id: &NodeId) {
        let own_id = self.own_id;
        let is_refused: Vec<_> =
            self.requests.own.iter().map(|request| self.refuses(id, &request_id(&own_id, request))).collect();
        if !is_refused.contains(&true) {
            return;
        }
        let name = self.policy.member(id).map(|member| member.name.clone()).unwrap_or_default();
        let mut refused = is_refused.into_iter();
        self.requests.own.retain(|_| refused.next() != Some(true));
        self.tell(NodeEvent::RequestRefused { by: name });
        self.publish_requests(now);
    }

    fn is_refused(&self, id: &RequestId) -> bool {
        self.requests.refused.contains(id) || self.policy.members().any(|member| self.refuses(&member.id, id))
    }

    /// Says whether a member refuses a request, and may.
    fn refuses(&self, member: &NodeId, id: &RequestId) -> bool {
        let record = self.gossip.record(member, &self.policy);
        let says_so = record.is_some_and(|record| record.refused.contains(id));
        says_so && self.ledger.state().authorize(&[VerifyingKey(member.0)], Scope::Rights).is_ok()
    }

    fn publish_requests(&mut self, now: Now) {
        self.tell(NodeEvent::Requested(self.requests.own.clone()));
        self.publish_record(now);
        self.settle(now);
    }
}

/// What gives a member something, were a signer to order it.
///
/// # Errors
/// [`BadRelay`] for a relay that there cannot be.
pub fn operation(identity: NodeId, wanted: Wanted) -> Result<Operation, BadRelay> {
    Ok(match wanted {
        Wanted::Route { prefix, local } => Operation::RouteApprove(RouteApprove { identity, prefix, local }),
        Wanted::Exit => Operation::ExitApprove(ExitApprove { identity, is_exit: true }),
        Wanted::Relay { endpoints, tls_port } => {
            let terms = Some(relay_terms(&endpoints, tls_port)?);
            Operation::RelayApprove(RelayApprove { identity, terms })
        }
    })
}

/// The terms that are asked for; the class is a signer's to choose, and the default one meanwhile.
fn relay_terms(endpoints: &[Option<SocketAddr>], tls_port: u16) -> Result<RelayTerms, BadRelay> {
    RelayTerms::new(StaticEndpoints::new(endpoints.iter().copied().flatten())?, tls_port, DEFAULT_RELAY_CLASS)
}

/// Says whether a request is neither granted nor too old.
fn waits(request: &Request, member: &Member, time: UnixMillis) -> bool {
    let is_granted = match request.wanted {
        Wanted::Route { prefix, local } => {
            let local = local.unwrap_or(prefix);
            member.subnets.iter().any(|subnet| subnet.prefix == prefix && subnet.local == local)
        }
        Wanted::Exit => member.is_exit,
        Wanted::Relay { endpoints, tls_port } => {
            let wanted = relay_terms(&endpoints, tls_port);
            member.relay.as_ref().is_some_and(|terms| wanted.is_ok_and(|wanted| terms.is_where(&wanted)))
        }
    };
    // The asker's own word: one from the future would wait for ever.
    let is_believable = request.made <= time.after(CLOCK_TOLERANCE);
    !is_granted && is_believable && time < request.made.after(REQUEST_LIFETIME)
}

fn request_id(member: &NodeId, request: &Request) -> RequestId {
    let bytes = borsh::to_vec(request).expect("writing to memory does not fail");
    let hash = domain_hash("p2plus/request/1", &[&member.0, &bytes]).0;
    RequestId(*hash.first_chunk().expect("eight bytes of thirty-two"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::member;

    #[test]
    fn a_request_waits_for_a_week_and_one_from_the_future_not_at_all() {
        let made = UnixMillis(1_800_000_000_000);
        let request = Request { wanted: Wanted::Exit, made };
        let before = |duration: Duration| UnixMillis(made.0 - duration.as_millis() as u64);
        for (time, expected) in [
            (made, true),
            (made.after(REQUEST_LIFETIME), false),
            (before(CLOCK_TOLERANCE), true),
            (before(CLOCK_TOLERANCE + Duration::from_millis(1)), false),
        ] {
            assert_eq!(waits(&request, &member(1), time), expected, "{time:?}");
        }
        assert!(!waits(&request, &Member { is_exit: true, ..member(1) }, made), "granted");
    }

    fn relay(endpoints: [Option<&str>; 2], tls_port: u16) -> Wanted {
        Wanted::Relay { endpoints: endpoints.map(|text| text.map(|text| text.parse().unwrap())), tls_port }
    }

    #[test]
    fn a_relay_is_asked_for_until_the_ledger_has_it_where_it_was_asked_for_whatever_its_class() {
        let made = UnixMillis(1_800_000_000_000);
        let wanted = relay([Some("203.0.113.7:4647"), Some("[2001:db8::7]:4647")], 443);
        let Ok(Operation::RelayApprove(approve)) = operation(NodeId([1; 32]), wanted) else { panic!("{wanted:?}") };
        let terms = approve.terms.unwrap();
        assert_eq!((terms.class(), terms.tls_port()), (DEFAULT_RELAY_CLASS, Some(443)));
        let at = |endpoints: &StaticEndpoints, tls_port, class| {
            let relay = Some(RelayTerms::new(endpoints.clone(), tls_port, class).unwrap());
            waits(&Request { wanted, made }, &Member { relay, ..member(1) }, made)
        };
        assert!(waits(&Request { wanted, made }, &member(1), made));
        assert!(!at(terms.endpoints(), 443, 3), "granted");
        assert!(at(terms.endpoints(), 0, 2), "without TLS");
        assert!(at(&StaticEndpoints::new(terms.endpoints().as_slice()[..1].iter().copied()).unwrap(), 443, 2));
    }

    #[test]
    fn a_relay_that_no_ledger_would_have_leads_to_no_operation() {
        for wanted in [relay([None, None], 443), relay([Some("127.0.0.1:4647"), None], 0)] {
            assert!(operation(NodeId([1; 32]), wanted).is_err(), "{wanted:?}");
        }
    }
}
