use super::*;
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::ledger::operation::{EndpointsSet, ProtocolSet, RelayApprove, ValidatorSetOperation};
use crate::policy::RelayTerms;
use crate::wire::endpoint::StaticEndpoints;
use std::net::SocketAddr;

fn endpoints(texts: &[&str]) -> StaticEndpoints {
    StaticEndpoints::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
}

fn terms(texts: &[&str], class: u8) -> RelayTerms {
    RelayTerms::new(endpoints(texts), 443, class).unwrap()
}

fn relay(seed: u8, terms: Option<RelayTerms>) -> Operation {
    Operation::RelayApprove(RelayApprove { identity: id(seed), terms })
}

fn stays(seed: u8, texts: &[&str]) -> Operation {
    Operation::EndpointsSet(EndpointsSet { identity: id(seed), endpoints: endpoints(texts) })
}

fn places(net: &Net, seed: u8) -> (Option<RelayTerms>, Vec<SocketAddr>) {
    let policy = net.state.policy(&BTreeMap::new());
    let member = policy.member(&id(seed)).unwrap();
    (member.relay.clone(), member.static_endpoints.clone())
}

#[test]
fn a_signer_makes_a_relay_and_the_member_itself_may_stop() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let first = terms(&["203.0.113.7:4647", "[2001:db8::7]:4647"], 2);
    let by_itself = net.sign(&[NODE], vec![relay(NODE, Some(first.clone()))]);
    let refused = TxError::NotAuthorized { scope: Scope::Rights, weight: 0, threshold: 1 };
    assert_eq!(net.commit(by_itself), Err(refused.clone()));
    assert_eq!(net.order(relay(NODE, None)), Err(TxError::NotARelay(id(NODE))));
    net.order(relay(NODE, Some(first.clone()))).unwrap();
    assert_eq!(net.state.relay(&id(NODE)).unwrap().approval.signers, [key(ADMIN).verifying_key()]);
    assert_eq!(places(&net, NODE), (Some(first.clone()), first.endpoints().as_slice().to_vec()));
    let moved = terms(&["203.0.113.8:4647"], 3);
    net.order(relay(NODE, Some(moved.clone()))).unwrap();
    assert_eq!(places(&net, NODE).0, Some(moved));
    let by_another = net.sign(&[FOUNDER], vec![relay(NODE, None)]);
    assert_eq!(net.commit(by_another), Err(refused));
    let by_itself = net.sign(&[NODE], vec![relay(NODE, None)]);
    net.commit(by_itself).unwrap();
    assert_eq!(places(&net, NODE), (None, Vec::new()));
    assert_eq!(net.order(relay(NODE + 1, Some(first))), Err(TxError::NotAMember(id(NODE + 1))));
}

#[test]
fn a_validator_or_a_signer_says_where_it_stays_and_nobody_else_has_such_a_place() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    assert_eq!(net.order(stays(NODE, &["203.0.113.7:4647"])), Err(TxError::NotAValidator(id(NODE))));
    assert_eq!(net.order(stays(NODE + 1, &["203.0.113.7:4647"])), Err(TxError::NotAMember(id(NODE + 1))));
    let by_itself = net.sign(&[FOUNDER], vec![stays(FOUNDER, &["203.0.113.7:4647"])]);
    net.commit(by_itself).unwrap();
    assert_eq!(net.state.endpoints(&id(FOUNDER)).unwrap().approval.signers, []);
    let by_another = net.sign(&[NODE], vec![stays(FOUNDER, &[])]);
    assert!(matches!(net.commit(by_another), Err(TxError::NotAuthorized { scope: Scope::Rights, .. })));
    net.order(relay(FOUNDER, Some(terms(&["203.0.113.7:4647", "203.0.113.6:4647"], 1)))).unwrap();
    let both = endpoints(&["203.0.113.6:4647", "203.0.113.7:4647"]);
    assert_eq!(places(&net, FOUNDER).1, both.as_slice(), "each once, in order");
    net.order(relay(FOUNDER, None)).unwrap();
    assert_eq!(places(&net, FOUNDER).1, endpoints(&["203.0.113.7:4647"]).as_slice());
    net.order(stays(FOUNDER, &[])).unwrap();
    assert_eq!((places(&net, FOUNDER).1, net.state.endpoints(&id(FOUNDER))), (Vec::new(), None));
}

#[test]
fn no_place_of_the_network_is_inside_it() {
    let mut net = Net::with(small_pool("10.77.0.0/24"));
    let own = net.state.policy(&BTreeMap::new()).member(&id(FOUNDER)).unwrap().addresses.clone();
    assert_eq!(own.len(), 2);
    for address in own {
        let inside = SocketAddr::new(address, 4647);
        let texts = ["203.0.113.7:4647", &inside.to_string()];
        assert_eq!(net.order(relay(FOUNDER, Some(terms(&texts, 2)))), Err(TxError::OverlayEndpoint(inside)));
        assert_eq!(net.order(stays(FOUNDER, &texts)), Err(TxError::OverlayEndpoint(inside)));
    }
    assert_eq!(places(&net, FOUNDER), (None, Vec::new()));
}

#[test]
fn the_places_of_a_member_end_with_it() {
    let mut net = Net::new();
    let place = terms(&["203.0.113.7:4647"], 2);
    let expires = Some(net.later().after(DAY));
    net.order(Operation::Admit(crate::ledger::operation::Admit { expires, ..admit(NODE, 0) })).unwrap();
    net.order(relay(NODE, Some(place.clone()))).unwrap();
    net.order(relay(FOUNDER, Some(place.clone()))).unwrap();
    net.order(stays(FOUNDER, &["203.0.113.8:4647"])).unwrap();
    net.commit(net.revocation(ADMIN, &[(FOUNDER, 0)])).unwrap();
    assert_eq!((net.state.relay(&id(FOUNDER)), net.state.endpoints(&id(FOUNDER))), (None, None));
    // It has its seat still, and no say any more where it is.
    let by_itself = net.sign(&[FOUNDER], vec![stays(FOUNDER, &["203.0.113.8:4647"])]);
    assert_eq!(net.commit(by_itself), Err(TxError::NotAMember(id(FOUNDER))));
    assert_eq!(places(&net, NODE).0, Some(place));
    net.commit_at(net.later().after(DAY), &[]);
    assert!(!net.is_member(NODE) && net.state.relay(&id(NODE)).is_none());
}

#[test]
fn the_place_of_a_validator_ends_with_its_seat() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    net.order(stays(FOUNDER, &["203.0.113.7:4647"])).unwrap();
    let kept = |node: NodeId| {
        let mut seat = seats().as_slice()[0];
        (seat.node, seat.transport_key) = (node, TransportKey([NODE; 32]));
        let mut draft = net.state.draft(net.head.height().next(), net.later());
        draft.set_validators(&ValidatorSetOperation { seats: crate::ledger::Seats::new(vec![seat]).unwrap() }).unwrap();
        draft.layers.keep();
        let mut state = net.state.clone();
        state.commit(&draft.finish().0);
        state.endpoints(&id(FOUNDER)).is_some()
    };
    assert!(kept(id(FOUNDER)) && !kept(id(NODE)));
}

#[test]
fn a_network_of_version_2_has_no_such_places_until_it_is_raised() {
    let mut net = Net::of_version(2);
    let place = || relay(FOUNDER, Some(terms(&["203.0.113.7:4647"], 2)));
    let later = |operation| TxError::LaterProtocol { operation, needed: 3, network: 2 };
    assert_eq!(net.order(place()), Err(later("relay-approve")));
    assert_eq!(net.order(stays(FOUNDER, &["203.0.113.7:4647"])), Err(later("endpoints-set")));
    let raised = net.sign(&[ADMIN], vec![Operation::ProtocolSet(ProtocolSet { version: 3 }), place()]);
    net.commit(raised).unwrap();
    net.order(stays(FOUNDER, &["203.0.113.7:4647"])).unwrap();
    assert_eq!(net.state.rules().len(), 1, "it has had rules since version 2");
}
