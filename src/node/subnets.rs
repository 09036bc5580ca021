//! What lies behind members, as far as this node's user accepts it: which member carries what is for a subnet, or for everywhere.
//!
//! Several members may route one subnet. The one in use stays in use until it is silent; then the first that is not takes its place, and
//! keeps it. What nobody accepted is nobody's: neither does this node send there, nor may anybody speak from there.

use crate::crypto::identity::NodeId;
use crate::policy::{Member, Policy};
use crate::router::Prefix;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Everywhere.
const DEFAULT_ROUTES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// What a node's user accepts of what lies behind others.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Accepted {
    /// Every subnet that the ledger approves, now and later.
    pub all: bool,
    /// These.
    pub prefixes: BTreeSet<Prefix>,
    /// Those of all accepted that the host is to send there although they cover a network of its own.
    pub forced: BTreeSet<Prefix>,
    /// Who carries what is for nobody in the overlay.
    pub exit: Option<NodeId>,
}

impl Accepted {
    /// Says whether a subnet is accepted.
    pub fn takes(&self, prefix: Prefix) -> bool {
        self.all || self.prefixes.contains(&prefix)
    }
}

/// A route that this node uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetRoute {
    /// Where to.
    pub prefix: Prefix,
    /// By whom.
    pub router: NodeId,
    /// Whether that one is silent, and nobody else is there.
    pub is_silent: bool,
}

/// The choice of one moment.
#[derive(Debug, Default)]
pub(super) struct Subnets {
    accepted: Accepted,
    silent: BTreeSet<NodeId>,
    chosen: BTreeMap<Prefix, NodeId>,
    /// All who may route what is accepted, in the order of their identities.
    routers: BTreeMap<Prefix, Vec<NodeId>>,
}

impl Subnets {
    /// Knows nobody.
    pub(super) fn new(accepted: Accepted) -> Self {
        Self { accepted, ..Self::default() }
    }

    /// Says whether a member does not answer, as far as that was looked at.
    pub(super) fn is_silent(&self, member: &NodeId) -> bool {
        self.silent.contains(member)
    }

    /// Takes what the user accepts. Says whether that is news.
    pub(super) fn accept(&mut self, accepted: Accepted) -> bool {
        let is_news = self.accepted != accepted;
        self.accepted = accepted;
        is_news
    }

    /// Lends what the user accepts.
    pub(super) fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// Takes who does not answer. Says whether a subnet has another router for it.
    pub(super) fn set_silent(&mut self, silent: BTreeSet<NodeId>) -> bool {
        self.silent = silent;
        self.choose()
    }

    /// Follows a policy.
    pub(super) fn handle_policy(&mut self, own: &NodeId, policy: &Policy) {
        self.routers.clear();
        self.silent.retain(|id| policy.member(id).is_some());
        for member in policy.members().filter(|member| member.id != *own) {
            for prefix in behind(member, self.accepted.exit) {
                let is_default = prefix.bits() == 0;
                if is_default || self.accepted.takes(prefix) {
                    self.routers.entry(prefix).or_default().push(member.id);
                }
            }
        }
        self.choose();
    }

    fn choose(&mut self) -> bool {
        let choice = |(prefix, routers): (&Prefix, &Vec<NodeId>)| {
            let answers = |id: &&NodeId| !self.silent.contains(id);
            let current = self.chosen.get(prefix).filter(|id| routers.contains(id));
            let router =
                current.filter(answers).or_else(|| routers.iter().find(answers)).or(current).or(routers.first());
            Some((*prefix, *router?))
        };
        let chosen = self.routers.iter().filter_map(choice).collect();
        let is_news = self.chosen != chosen;
        self.chosen = chosen;
        is_news
    }

    /// Those of whom it matters whether they are there: routers of a subnet that has others.
    pub(super) fn rivals(&self) -> BTreeSet<NodeId> {
        self.routers.values().filter(|routers| routers.len() > 1).flatten().copied().collect()
    }

    /// Says whether a member routes something, or is known not to answer.
    pub(super) fn mentions(&self, member: &NodeId) -> bool {
        self.silent.contains(member)
            || self.routers.values().flatten().chain(self.chosen.values()).any(|id| id == member)
    }

    /// The routes in use.
    pub(super) fn routes(&self) -> impl Iterator<Item = SubnetRoute> {
        self.chosen.iter().map(|(prefix, router)| SubnetRoute {
            prefix: *prefix,
            router: *router,
            is_silent: self.silent.contains(router),
        })
    }

    /// All who may speak from a subnet, with the subnet.
    pub(super) fn routers(&self) -> impl Iterator<Item = (Prefix, NodeId)> {
        self.routers.iter().flat_map(|(prefix, routers)| routers.iter().map(move |router| (*prefix, *router)))
    }
}

/// What lies behind a member; everywhere, too, if it is the exit in use.
pub(super) fn behind(member: &Member, exit: Option<NodeId>) -> impl Iterator<Item = Prefix> {
    let is_exit = member.is_exit && exit == Some(member.id);
    let everywhere = DEFAULT_ROUTES.into_iter().filter(move |_| is_exit);
    let everywhere = everywhere.filter_map(|address| Prefix::new(address, 0).ok());
    member.subnets.iter().map(|subnet| subnet.prefix).chain(everywhere)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Subnet;
    use crate::policy::tests::member;

    const OWN: NodeId = NodeId([9; 32]);

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn routing(seed: u8, prefixes: &[&str], is_exit: bool) -> Member {
        let subnet = |text: &&str| Subnet { prefix: prefix(text), local: prefix(text) };
        Member { subnets: prefixes.iter().map(subnet).collect(), is_exit, ..member(seed) }
    }

    fn policy(members: impl IntoIterator<Item = Member>) -> Policy {
        Policy::new(members, BTreeMap::new(), BTreeSet::new())
    }

    fn chosen(subnets: &Subnets) -> Vec<(String, u8)> {
        subnets.routes().map(|route| (route.prefix.to_string(), route.router.0[0])).collect()
    }

    const SITE: &str = "192.168.1.0/24";

    #[test]
    fn only_what_is_accepted_is_routed() {
        let policy =
            policy([routing(1, &[SITE, "10.9.0.0/16"], true), routing(2, &[], true), routing(9, &[SITE], true)]);
        let mut subnets = Subnets::default();
        subnets.handle_policy(&OWN, &policy);
        assert_eq!(chosen(&subnets), []);
        assert!(subnets.accept(Accepted { prefixes: [prefix(SITE)].into(), ..Accepted::default() }));
        subnets.handle_policy(&OWN, &policy);
        assert_eq!(chosen(&subnets), [(SITE.to_owned(), 1)]);
        let exit = Some(NodeId([2; 32]));
        assert!(subnets.accept(Accepted { all: true, exit, ..Accepted::default() }));
        subnets.handle_policy(&OWN, &policy);
        let expected = [("0.0.0.0/0", 2), ("10.9.0.0/16", 1), (SITE, 1), ("::/0", 2)];
        assert_eq!(chosen(&subnets), expected.map(|(prefix, router)| (prefix.to_owned(), router)));
        subnets.accept(Accepted { exit: Some(NodeId([3; 32])), ..Accepted::default() });
        subnets.handle_policy(&OWN, &policy);
        assert_eq!(chosen(&subnets), [], "who is no exit carries nothing");
    }

    #[test]
    fn the_router_in_use_stays_until_it_is_silent() {
        let policy = policy([routing(1, &[SITE], false), routing(2, &[SITE], false), routing(3, &[SITE], false)]);
        let mut subnets = Subnets::default();
        subnets.accept(Accepted { all: true, ..Accepted::default() });
        subnets.handle_policy(&OWN, &policy);
        let id = |seed| NodeId([seed; 32]);
        let mut after = |silent: &[u8]| {
            let is_news = subnets.set_silent(silent.iter().copied().map(id).collect());
            (is_news, subnets.routes().next().unwrap().router.0[0])
        };
        assert_eq!(after(&[]), (false, 1));
        assert_eq!(after(&[1]), (true, 2));
        assert_eq!(after(&[]), (false, 2), "no way back without need");
        assert_eq!(after(&[2]), (true, 1));
        assert_eq!(after(&[1, 2, 3]), (false, 1), "nobody is better");
        assert_eq!(after(&[1, 2]), (true, 3));
        assert_eq!(subnets.rivals().len(), 3);
        assert_eq!(subnets.routers().count(), 3, "each may speak from there");
    }
}
