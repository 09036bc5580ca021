//! Which rule covers a conversation: all rules at once, by bit vectors.
//!
//! ```text
//!   source ─► class ─► 1 0 1 1 0 …  ┐ and   rules that mean both ends; the first of them that covers the protocol
//!   destination ─► class ─► 0 0 1 1 1 …  ┘       and the port decides. Those that deny stand before those that allow
//! ```
//! Says what [`crate::policy::Policy::decide`] says: looking at 10,000 rules costs two prefix lookups and the AND of 157 words. Memory: a
//! bit per rule for each prefix of the rules and each combination of tags; members that the rules do not tell apart share one vector.
//! After T. V. Lakshman and D. Stiliadis, "High-speed policy-based packet forwarding", 1998.

use super::prefix::PrefixMap;
use crate::crypto::identity::NodeId;
use crate::policy::decision::{Conversation, Decision, NumberedRule};
use crate::policy::rule::{Action, Rule, Selector};
use crate::policy::{Member, Policy};
use crate::wire::prefix::Prefix;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All rules of one moment.
#[derive(Debug, Default)]
pub struct Classifier {
    /// Those that deny, then those that allow, each in the order of their numbers.
    rules: Vec<NumberedRule>,
    sources: Side,
    destinations: Side,
    /// Every conversation may begin.
    is_open: bool,
}

impl Classifier {
    /// Compiles a policy's rules.
    pub fn new(policy: &Policy) -> Self {
        let of = |action| policy.rules().iter().filter(move |numbered| numbered.rule.action() == action).cloned();
        let rules: Vec<_> = of(Action::Deny).chain(of(Action::Allow)).collect();
        let sources = Side::new(policy, rules.iter().map(|numbered| numbered.rule.source()));
        let destinations = Side::new(policy, rules.iter().map(|numbered| numbered.rule.destination()));
        let denies = rules.first().is_some_and(|first| first.rule.action() == Action::Deny);
        let is_open = !denies && rules.iter().any(|numbered| numbered.rule == Rule::allow_all());
        Self { rules, sources, destinations, is_open }
    }

    /// Says whether every conversation may begin, so that nothing needs to be looked at.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Says whether a conversation may begin, and by which rule.
    pub fn decide(&self, conversation: &Conversation) -> Decision {
        let Conversation { source, destination, protocol, port } = *conversation;
        let ends = self.sources.rules_of(source).iter().zip(self.destinations.rules_of(destination));
        for (at, (source, destination)) in ends.enumerate() {
            let mut both = source & destination;
            while both != 0 {
                let position = at * WORD_BITS + both.trailing_zeros() as usize;
                let NumberedRule { number, rule } = &self.rules[position];
                if rule.covers(protocol, port) {
                    return Decision { action: rule.action(), rule: Some(*number) };
                }
                both &= both - 1;
            }
        }
        Decision::UNCOVERED
    }
}

/// Bits of a word.
const WORD_BITS: usize = u64::BITS as usize;

/// Which rules mean an address at one end.
#[derive(Debug, Default)]
struct Side {
    classes: PrefixMap<u32>,
    /// The vectors of all classes, one behind the other; that of addresses which no rule tells apart is the first.
    words: Vec<u64>,
    /// How many words a vector has.
    width: usize,
}

impl Side {
    /// Lends the vector of an address.
    #[inline]
    fn rules_of(&self, address: IpAddr) -> &[u64] {
        let class = self.classes.get(address).unwrap_or(0) as usize;
        &self.words[class * self.width..][..self.width]
    }

    fn new<'r>(policy: &Policy, selectors: impl ExactSizeIterator<Item = &'r Selector>) -> Self {
        let width = selectors.len().div_ceil(WORD_BITS);
        let mut meant = Meant::default();
        for (position, selector) in selectors.enumerate() {
            match selector {
                Selector::Any => meant.any.push(position),
                Selector::Prefix(prefix) => meant.prefixes.entry(*prefix).or_default().push(position),
                Selector::Member(id) => meant.members.entry(*id).or_default().push(position),
                Selector::Tag(tag) => meant.tags.entry(tag.as_str()).or_default().push(position),
            }
        }
        let mut side = Self { classes: PrefixMap::default(), words: vec![0; width], width };
        meant.any.iter().for_each(|position| set(&mut side.words, *position));
        let by_prefix = side.add_prefixes(&meant);
        side.classes = PrefixMap::new(by_prefix.iter().copied());
        let by_member = side.add_members(policy, &meant);
        // A member's address is longer than every prefix but itself, and its class has what that prefix means.
        side.classes = PrefixMap::new(by_member.into_iter().chain(by_prefix));
        side
    }

    /// Makes a class for each prefix, from those around it to those within: what a prefix means, those within it mean as well.
    fn add_prefixes(&mut self, meant: &Meant<'_>) -> Vec<(Prefix, u32)> {
        let mut around: Vec<(Prefix, u32)> = Vec::new();
        let mut classes = Vec::with_capacity(meant.prefixes.len());
        // In this order a prefix follows the one around it, and all within that follow before the next beside it.
        for (prefix, positions) in &meant.prefixes {
            while around.last().is_some_and(|(outer, _)| !outer.contains(prefix.address())) {
                around.pop();
            }
            let outer = around.last().map_or(0, |(_, class)| *class);
            let class = self.add_class(outer, positions.iter().copied());
            around.push((*prefix, class));
            classes.push((*prefix, class));
        }
        classes
    }

    /// Makes a class for each kind of member that the rules tell apart.
    fn add_members(&mut self, policy: &Policy, meant: &Meant<'_>) -> Vec<(Prefix, u32)> {
        let mut known = BTreeMap::new();
        let mut classes = Vec::new();
        for member in policy.members() {
            let positions = meant.by_member(member);
            if positions.is_empty() {
                continue;
            }
            for address in &member.addresses {
                let outer = self.classes.get(*address).unwrap_or(0);
                let class = *known
                    .entry((outer, positions.clone()))
                    .or_insert_with(|| self.add_class(outer, positions.iter().copied()));
                classes.push((Prefix::host(*address), class));
            }
        }
        classes
    }

    /// Adds a class that has the rules of another one and those at `positions`.
    fn add_class(&mut self, outer: u32, positions: impl Iterator<Item = usize>) -> u32 {
        let class = self.words.len() / self.width;
        let begin = outer as usize * self.width;
        self.words.extend_from_within(begin..begin + self.width);
        let own = &mut self.words[class * self.width..];
        positions.for_each(|position| set(own, position));
        u32::try_from(class).expect("fewer classes than prefixes and members")
    }
}

fn set(words: &mut [u64], position: usize) {
    words[position / WORD_BITS] |= 1 << (position % WORD_BITS);
}

/// The positions of the rules by what they mean at one end.
#[derive(Default)]
struct Meant<'r> {
    any: Vec<usize>,
    prefixes: BTreeMap<Prefix, Vec<usize>>,
    members: BTreeMap<NodeId, Vec<usize>>,
    tags: BTreeMap<&'r str, Vec<usize>>,
}

impl Meant<'_> {
    /// Those that mean a member by its identity or a tag.
    fn by_member(&self, member: &Member) -> Vec<usize> {
        let by_tags = member.tags.iter().filter_map(|tag| self.tags.get(tag.as_str()));
        let mut positions: Vec<_> = by_tags.chain(self.members.get(&member.id)).flatten().copied().collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::tests::rule;
    use crate::policy::rule::{Ports, Protocol};
    use crate::policy::tests::member;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn policy(rules: Vec<Rule>, tags: &[Vec<String>]) -> Policy {
        let members = (1..).zip(tags).map(|(seed, tags)| Member { tags: tags.clone(), ..member(seed) });
        let rules = (1..).zip(rules).map(|(number, rule)| NumberedRule { number, rule }).collect();
        Policy::new(members, BTreeMap::new(), BTreeSet::new()).with_rules(rules)
    }

    fn conversation() -> impl Strategy<Value = Conversation> {
        let address = || {
            prop_oneof![
                (0..9u8).prop_map(|low| IpAddr::from([10, 64, 0, low])),
                (0..5u8).prop_map(|third| IpAddr::from([192, 168, third, 9])),
                Just(IpAddr::from([9, 9, 9, 9])),
                Just("fd00::1".parse().unwrap()),
            ]
        };
        let protocol = prop_oneof![Just(1u8), Just(6), Just(17), Just(47), Just(58)];
        let port = prop::option::of(1..9u16);
        (address(), address(), protocol, port).prop_map(|(source, destination, protocol, port)| Conversation {
            source,
            destination,
            protocol,
            port,
        })
    }

    proptest! {
        #[test]
        fn it_says_what_the_rules_say_one_by_one(
            rules in prop::collection::vec(rule(), 0..150),
            tags in prop::collection::vec(prop::collection::vec("[a-d]", 0..3), 0..6),
            conversations in prop::collection::vec(conversation(), 1..60),
        ) {
            let policy = policy(rules, &tags);
            let classifier = Classifier::new(&policy);
            for conversation in conversations {
                prop_assert_eq!(classifier.decide(&conversation), policy.decide(&conversation), "{:?}", conversation);
                prop_assert!(!classifier.is_open() || classifier.decide(&conversation).allows());
            }
        }
    }

    #[test]
    fn only_allow_all_without_a_denial_is_open() {
        let deny = Rule::new(
            Action::Deny,
            [Selector::Any, Selector::Tag("a".parse().unwrap())],
            Protocol::Any,
            Ports::default(),
        )
        .unwrap();
        assert!(Classifier::new(&policy(vec![Rule::allow_all()], &[])).is_open());
        assert!(!Classifier::new(&policy(vec![Rule::allow_all(), deny], &[])).is_open());
        assert!(!Classifier::new(&policy(vec![], &[])).is_open());
        assert!(!Classifier::default().is_open(), "before there is a policy nothing passes");
    }

    #[test]
    fn members_that_the_rules_do_not_tell_apart_share_a_vector() {
        let tags: Vec<_> = (0..200).map(|number| vec![if number % 2 == 0 { "a" } else { "b" }.to_owned()]).collect();
        let rule = Rule::new(
            Action::Allow,
            [Selector::Tag("a".parse().unwrap()), Selector::Any],
            Protocol::Any,
            Ports::default(),
        )
        .unwrap();
        let classifier = Classifier::new(&policy(vec![rule], &tags));
        assert_eq!(classifier.sources.words.len() / classifier.sources.width, 2);
    }
}
