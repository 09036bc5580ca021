use super::*;
use crate::ledger::operation::{ExitApprove, RouteApprove, RouteRevoke};
use crate::ledger::state::BadRoute;
use crate::wire::prefix::Prefix;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn route(seed: u8, text: &str, local: Option<&str>) -> Operation {
    Operation::RouteApprove(RouteApprove { identity: id(seed), prefix: prefix(text), local: local.map(prefix) })
}

fn routes(net: &Net) -> Vec<String> {
    net.state.routes().into_iter().map(|((_, prefix), _)| prefix.to_string()).collect()
}

#[test]
fn a_signer_approves_and_the_member_itself_may_stop() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let by_itself = net.sign(&[NODE], vec![route(NODE, "192.168.1.0/24", None)]);
    assert!(matches!(net.commit(by_itself), Err(TxError::NotAuthorized { .. })));
    net.order(route(NODE, "192.168.1.0/24", None)).unwrap();
    net.order(route(FOUNDER, "192.168.1.0/24", None)).unwrap();
    let held = TxError::RouteExists(prefix("192.168.1.0/24"), id(NODE));
    assert_eq!(net.order(route(NODE, "192.168.1.0/24", None)), Err(held));
    net.order(Operation::ExitApprove(ExitApprove { identity: id(NODE), is_exit: true })).unwrap();
    assert_eq!(net.state.exit(&id(NODE)).unwrap().signers, [key(ADMIN).verifying_key()]);
    let policy = net.state.policy(&BTreeMap::new());
    let member = policy.member(&id(NODE)).unwrap();
    assert_eq!((member.subnets[0].prefix, member.is_exit), (prefix("192.168.1.0/24"), true));
    let stop = vec![
        Operation::RouteRevoke(RouteRevoke { identity: id(NODE), prefix: prefix("192.168.1.0/24") }),
        Operation::ExitApprove(ExitApprove { identity: id(NODE), is_exit: false }),
    ];
    let by_itself = net.sign(&[NODE], stop.clone());
    net.commit(by_itself).unwrap();
    assert_eq!((routes(&net).len(), net.state.exit(&id(NODE))), (1, None));
    assert_eq!(net.order(stop[0].clone()), Err(TxError::NoSuchRoute(prefix("192.168.1.0/24"), id(NODE))));
    let foreign = RouteRevoke { identity: id(FOUNDER), prefix: prefix("192.168.1.0/24") };
    let by_another = net.sign(&[NODE], vec![Operation::RouteRevoke(foreign)]);
    assert!(matches!(net.commit(by_another), Err(TxError::NotAuthorized { .. })));
}

#[test]
fn what_is_no_subnet_is_refused_with_a_reason() {
    let mut net = Net::with(small_pool("10.77.0.0/24"));
    let overlay = crate::ledger::address::ipv6_prefix(&net.chain());
    for (text, reason) in [
        ("0.0.0.0/0", BadRoute::TooBroad),
        ("128.0.0.0/1", BadRoute::TooBroad),
        ("::/0", BadRoute::TooBroad),
        ("127.0.0.0/8", BadRoute::NotRoutable),
        ("224.0.0.0/24", BadRoute::NotRoutable),
        ("169.254.169.254/32", BadRoute::NotRoutable),
        ("fe80::/64", BadRoute::NotRoutable),
        ("::1/128", BadRoute::NotRoutable),
        ("10.77.0.8/32", BadRoute::Overlay),
        ("10.0.0.0/8", BadRoute::Overlay),
        (&format!("{overlay}/64"), BadRoute::Overlay),
    ] {
        let refused = TxError::BadRoute(prefix(text), reason);
        assert_eq!(net.order(route(FOUNDER, text, None)), Err(refused), "{text}");
    }
    for local in ["192.168.0.0/16", "fd01::/24"] {
        let unlike = TxError::BadRoute(prefix(local), BadRoute::UnlikeMapping);
        assert_eq!(net.order(route(FOUNDER, "10.1.1.0/24", Some(local))), Err(unlike));
    }
    assert_eq!(net.order(route(NODE, "10.1.1.0/24", None)), Err(TxError::NotAMember(id(NODE))));
    assert!(routes(&net).is_empty());
}

#[test]
fn a_mapping_says_what_the_subnet_is_there_and_can_be_changed() {
    let mut net = Net::new();
    let subnet = |net: &Net| net.state.policy(&BTreeMap::new()).member(&id(FOUNDER)).unwrap().subnets[0];
    net.order(route(FOUNDER, "172.20.1.0/24", Some("192.168.1.0/24"))).unwrap();
    assert_eq!(subnet(&net).local, prefix("192.168.1.0/24"));
    net.order(route(FOUNDER, "172.20.1.0/24", None)).unwrap();
    assert_eq!((subnet(&net).local, routes(&net).len()), (prefix("172.20.1.0/24"), 1));
}

#[test]
fn what_lies_behind_a_member_ends_with_it_and_has_a_bound() {
    let mut net = Net::new();
    net.order(Operation::Admit(admit(NODE, 0))).unwrap();
    let many: Vec<_> = (0..=255).map(|third| route(NODE, &format!("172.16.{third}.0/24"), None)).collect();
    for some in many.chunks(16) {
        let signed = net.sign(&[ADMIN], some.to_vec());
        net.commit(signed).unwrap();
    }
    assert_eq!(net.order(route(NODE, "172.17.0.0/24", None)), Err(TxError::TooManyRoutes));
    net.order(Operation::ExitApprove(ExitApprove { identity: id(NODE), is_exit: true })).unwrap();
    net.order(route(FOUNDER, "172.18.0.0/24", None)).unwrap();
    net.commit(net.revocation(ADMIN, &[(NODE, 0)])).unwrap();
    assert_eq!((routes(&net), net.state.exit(&id(NODE))), (vec!["172.18.0.0/24".to_owned()], None));
}
