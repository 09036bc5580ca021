//! May a conversation begin? The meaning of a network's rules, spelled out plainly.
//!
//! A rule that denies comes before every rule that allows; what no rule allows is denied. The data path decides by
//! [`crate::router::classifier`], which says the same faster; people are told what this says.

use super::rule::{Action, Rule, Selector};
use super::{Member, Policy};
use crate::wire::flow::Flow;
use std::net::IpAddr;

/// A rule with the number that the network gave it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NumberedRule {
    /// The number; 0 stands for the rule of a network too old to have rules, where everything is allowed.
    pub number: u64,
    /// What it says.
    pub rule: Rule,
}

/// A conversation, as its first packet shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// Who begins it.
    pub source: IpAddr,
    /// With whom.
    pub destination: IpAddr,
    /// By which protocol above IP (IANA number).
    pub protocol: u8,
    /// At which port of the destination, where there are ports and they are known.
    pub port: Option<u16>,
}

impl From<Flow> for Conversation {
    fn from(flow: Flow) -> Self {
        let port = flow.port();
        let Flow { source, destination, protocol, .. } = flow;
        Self { source, destination, protocol, port }
    }
}

/// What the rules say of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether it may begin.
    pub action: Action,
    /// The number of the rule that says so; none where no rule covers it.
    pub rule: Option<u64>,
}

impl Decision {
    /// What holds where no rule covers a conversation.
    pub const UNCOVERED: Self = Self { action: Action::Deny, rule: None };

    /// Says whether it may begin.
    #[inline]
    pub fn allows(self) -> bool {
        self.action == Action::Allow
    }
}

impl Policy {
    /// Says whether a conversation may begin, and by which rule: of several that deny, else of several that allow, the
    /// one with the lowest number.
    pub fn decide(&self, conversation: &Conversation) -> Decision {
        let covers = |numbered: &&NumberedRule| {
            let rule = &numbered.rule;
            rule.covers(conversation.protocol, conversation.port)
                && self.selects(rule.source(), conversation.source)
                && self.selects(rule.destination(), conversation.destination)
        };
        let of = |action| self.rules.iter().filter(|numbered| numbered.rule.action() == action).find(covers);
        let found = of(Action::Deny).or_else(|| of(Action::Allow));
        found.map_or(Decision::UNCOVERED, |numbered| Decision {
            action: numbered.rule.action(),
            rule: Some(numbered.number),
        })
    }

    /// Says whether an address is one of those that a selector means.
    fn selects(&self, selector: &Selector, address: IpAddr) -> bool {
        match selector {
            Selector::Any => true,
            Selector::Prefix(prefix) => prefix.contains(address),
            Selector::Member(id) => self.owner(&address).is_some_and(|owner| owner.id == *id),
            Selector::Tag(tag) => self.owner(&address).is_some_and(|owner| has_tag(owner, tag.as_str())),
        }
    }
}

fn has_tag(member: &Member, tag: &str) -> bool {
    member.tags.iter().any(|held| held == tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::{PortRange, Ports, Protocol};
    use crate::policy::tests::member;
    use std::collections::{BTreeMap, BTreeSet};

    fn rule(action: Action, source: &str, destination: &str, port: Option<u16>) -> Rule {
        let selector = |text: &str| match text.split_once(':') {
            _ if text == "*" => Selector::Any,
            Some((_, tag)) => Selector::Tag(tag.parse().unwrap()),
            None if text.contains('/') => Selector::Prefix(text.parse().unwrap()),
            None => Selector::Member(member(text.parse().unwrap()).id),
        };
        let ports = Ports::new(port.map(|port| PortRange::new(port, port).unwrap())).unwrap();
        Rule::new(action, [selector(source), selector(destination)], Protocol::Any, ports).unwrap()
    }

    /// Members 1 to 3, of which 2 has the tag `web`.
    fn policy(rules: &[Rule]) -> Policy {
        let mut tagged = member(2);
        tagged.tags = vec!["web".to_owned()];
        let rules = (1..).zip(rules).map(|(number, rule)| NumberedRule { number, rule: rule.clone() }).collect();
        Policy::new([member(1), tagged, member(3)], BTreeMap::new(), BTreeSet::new()).with_rules(rules)
    }

    fn decide(policy: &Policy, source: [u8; 4], destination: [u8; 4], port: u16) -> (Action, Option<u64>) {
        let (source, destination) = (source.into(), destination.into());
        let decision = policy.decide(&Conversation { source, destination, protocol: 6, port: Some(port) });
        (decision.action, decision.rule)
    }

    const FIRST: [u8; 4] = [10, 64, 0, 1];
    const TAGGED: [u8; 4] = [10, 64, 0, 2];
    const THIRD: [u8; 4] = [10, 64, 0, 3];

    #[test]
    fn what_nothing_allows_is_denied_and_a_denial_wins() {
        let policy = policy(&[
            rule(Action::Allow, "1", "tag:web", None),
            rule(Action::Allow, "*", "3", Some(22)),
            rule(Action::Deny, "*", "tag:web", Some(23)),
            rule(Action::Allow, "192.168.7.0/24", "1", None),
        ]);
        assert_eq!(decide(&policy, FIRST, TAGGED, 80), (Action::Allow, Some(1)));
        assert_eq!(decide(&policy, FIRST, TAGGED, 23), (Action::Deny, Some(3)));
        assert_eq!(decide(&policy, TAGGED, FIRST, 80), (Action::Deny, None));
        assert_eq!(decide(&policy, [9, 9, 9, 9], THIRD, 22), (Action::Allow, Some(2)));
        assert_eq!(decide(&policy, [192, 168, 7, 9], FIRST, 5), (Action::Allow, Some(4)));
        assert_eq!(decide(&policy, [192, 168, 8, 9], FIRST, 5), (Action::Deny, None));
    }

    #[test]
    fn without_rules_nothing_is_allowed_and_a_revoked_member_has_no_tags() {
        assert_eq!(decide(&policy(&[]), FIRST, TAGGED, 80), (Action::Deny, None));
        let rules = [rule(Action::Allow, "*", "tag:web", None)];
        let numbered = vec![NumberedRule { number: 1, rule: rules[0].clone() }];
        let revoked = BTreeSet::from([member(2).id]);
        let without = Policy::new([member(1)], BTreeMap::new(), revoked).with_rules(numbered);
        assert_eq!(decide(&without, FIRST, TAGGED, 80), (Action::Deny, None));
    }
}
