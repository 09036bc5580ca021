//! Rules and conversations as people type them.
//!
//! ```text
//!   allow SRC DST[:PORTS][/tcp|/udp|/icmp]        SRC, DST: a member's name or identity · tag:NAME · ADDRESS · PREFIX · *
//!   PORTS  22 · 80,443 · 8000-8100                an IPv6 end with ports stands in brackets: [fd00::/8]:22
//! ```

use super::failure::{ErrorCode, Failure};
use crate::node::names;
use crate::policy::Policy;
use crate::policy::decision::Conversation;
use crate::policy::rule::{Action, PortRange, Ports, Protocol, Rule, Selector};
use crate::wire::prefix::{Prefix, PrefixError};
use std::net::IpAddr;

/// How rules are typed, for hints.
pub const RULE_HINT: &str =
    "a rule is: allow|deny SRC DST[:PORTS][/tcp|/udp|/icmp], where SRC and DST are a member, tag:NAME, a prefix or *";
/// How a question is typed.
pub const QUESTION_HINT: &str = "ask for a port or ping: SRC DST:PORT[/tcp|/udp], or SRC DST/icmp";

/// The protocol numbers that a question may name (IANA).
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Reads a rule of three words.
///
/// # Errors
/// Usage, with the word that is wrong, or not found.
pub fn rule(policy: &Policy, text: &str) -> Result<Rule, Failure> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [action, source, destination] = words[..] else {
        return Err(wrong(text, "a rule has three words", RULE_HINT));
    };
    let action = action_of(action).ok_or_else(|| wrong(action, "neither allow nor deny", RULE_HINT))?;
    let target = Target::split(destination)?;
    let ends = [selector(policy, source)?, selector(policy, target.host)?];
    Rule::new(action, ends, target.protocol, target.ports)
        .map_err(|error| wrong(destination, &error.to_string(), RULE_HINT))
}

/// Reads `allow` or `deny`.
pub fn action_of(word: &str) -> Option<Action> {
    match word {
        "allow" => Some(Action::Allow),
        "deny" => Some(Action::Deny),
        _ => None,
    }
}

/// Reads whom a question is about: `SRC` and `DST:PORT[/udp]` or `DST/icmp`.
///
/// # Errors
/// Usage or not found.
pub fn conversation(policy: &Policy, source: &str, destination: &str) -> Result<Conversation, Failure> {
    let target = Target::split(destination)?;
    let port = match (target.ports.single(), target.protocol) {
        (Some(port), Protocol::Any | Protocol::Tcp | Protocol::Udp) => Some(port),
        (None, Protocol::Icmp) if target.ports.is_every() => None,
        _ => return Err(wrong(destination, "no port, or more than one", QUESTION_HINT)),
    };
    let (sources, destinations) = (addresses(policy, source)?, addresses(policy, target.host)?);
    let same_version = |source: &IpAddr| {
        let fitting = destinations.iter().find(|destination| destination.is_ipv4() == source.is_ipv4());
        fitting.map(|destination| (*source, *destination))
    };
    let Some((source, destination)) = sources.iter().find_map(same_version) else {
        return Err(wrong(destination, "no address of the same version of IP as the source's", QUESTION_HINT));
    };
    let protocol = match target.protocol {
        Protocol::Any | Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Icmp if source.is_ipv4() => ICMP,
        Protocol::Icmp => ICMPV6,
    };
    Ok(Conversation { source, destination, protocol, port })
}

/// The second half of a rule in its parts.
struct Target<'t> {
    host: &'t str,
    ports: Ports,
    protocol: Protocol,
}

impl<'t> Target<'t> {
    fn split(text: &'t str) -> Result<Self, Failure> {
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((rest, "icmp")) => (rest, Protocol::Icmp),
            _ => (text, Protocol::Any),
        };
        let (host, ports) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, tail)) => (host, Some(tail.strip_prefix(':').unwrap_or(tail))),
            None => without_brackets(rest),
        };
        let ports = ports.map_or(Ok(Ports::default()), |ports| parse_ports(text, ports))?;
        Ok(Self { host, ports, protocol })
    }
}

/// Splits ports off an end that has no brackets; in an IPv6 address, which has colons of its own, there are none.
fn without_brackets(text: &str) -> (&str, Option<&str>) {
    let tag_len = text.strip_prefix("tag:").map_or(0, |_| "tag:".len());
    let host = &text[tag_len..];
    if host.matches(':').count() != 1 {
        return (text, None);
    }
    let at = tag_len + host.find(':').expect("there is one");
    (&text[..at], Some(&text[at + 1..]))
}

fn parse_ports(text: &str, ports: &str) -> Result<Ports, Failure> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        PortRange::new(number(first)?, number(last)?).ok()
    };
    let ranges: Option<Vec<_>> = ports.split(',').map(range).collect();
    let ranges =
        ranges.ok_or_else(|| wrong(text, "ports are 22, or 80,443, or 8000-8100, each 1 to 65535", RULE_HINT))?;
    Ports::new(ranges).map_err(|error| wrong(text, &error.to_string(), "use several rules"))
}

/// A decimal number; `u16::from_str` would take a sign as well.
fn number(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn selector(policy: &Policy, text: &str) -> Result<Selector, Failure> {
    if text == "*" {
        return Ok(Selector::Any);
    }
    if let Some(tag) = text.strip_prefix("tag:") {
        return tag.parse().map(Selector::Tag).map_err(|error| wrong(text, &format!("{error}"), RULE_HINT));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Selector::Prefix(Prefix::host(address)));
    }
    if text.contains('/') {
        let error = match text.parse() {
            Ok(prefix) => return Ok(Selector::Prefix(prefix)),
            Err(PrefixError::Syntax) => "neither a prefix nor a protocol that rules know: tcp, udp, icmp".to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(wrong(text, &error, RULE_HINT));
    }
    member(policy, text).map(|member| Selector::Member(member.id))
}

/// The addresses that a question may mean by an end.
fn addresses(policy: &Policy, text: &str) -> Result<Vec<IpAddr>, Failure> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(vec![address]),
        Err(_) => member(policy, text).map(|member| member.addresses.clone()),
    }
}

fn member<'p>(policy: &'p Policy, text: &str) -> Result<&'p crate::policy::Member, Failure> {
    names::resolve(policy, text).map_err(|error| {
        Failure::new(ErrorCode::NotFound, error.to_string()).hint("`p2plus members` lists the names; a tag is tag:NAME")
    })
}

fn wrong(text: &str, why: &str, hint: &str) -> Failure {
    Failure::new(ErrorCode::Usage, format!("{text:?}: {why}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::member as numbered;
    use std::collections::{BTreeMap, BTreeSet};

    fn policy() -> Policy {
        let mut second = numbered(2);
        second.addresses.push("fd00::2".parse().unwrap());
        Policy::new([numbered(1), second], BTreeMap::new(), BTreeSet::new())
    }

    fn shown(text: &str) -> String {
        let rule = rule(&policy(), text).unwrap_or_else(|failure| panic!("{text}: {failure}"));
        let end = |selector: &Selector| match selector {
            Selector::Any => "*".to_owned(),
            Selector::Member(id) => format!("#{}", id.0[0]),
            Selector::Tag(tag) => format!("tag:{tag}"),
            Selector::Prefix(prefix) => prefix.to_string(),
        };
        let (source, destination) = (end(rule.source()), end(rule.destination()));
        format!("{} {source} {destination} {} {}", rule.action(), rule.ports(), rule.protocol())
    }

    #[test]
    fn rules_are_read_as_they_are_typed() {
        for (typed, meant) in [
            ("allow * *", "allow * *  "),
            ("deny node-1 node-2:22/tcp", "deny #1 #2 :22 /tcp"),
            ("allow tag:web tag:db:5432,80-90", "allow tag:web tag:db :80-90,5432 "),
            ("allow tag:web */icmp", "allow tag:web *  /icmp"),
            ("allow 10.0.0.0/8 192.168.7.0/24:53/udp", "allow 10.0.0.0/8 192.168.7.0/24 :53 /udp"),
            ("allow 10.0.0.1 fd00::/8", "allow 10.0.0.1/32 fd00::/8  "),
            ("allow fd00::1 [fd00::/8]:22/tcp", "allow fd00::1/128 fd00::/8 :22 /tcp"),
            ("allow * fd00::1/tcp", "allow * fd00::1/128  /tcp"),
            ("allow * *:22", "allow * * :22 "),
        ] {
            assert_eq!(shown(typed), meant, "{typed}");
        }
    }

    #[test]
    fn what_is_no_rule_says_which_word_is_wrong() {
        for (typed, code, part) in [
            ("allow *", ErrorCode::Usage, "three words"),
            ("permit * *", ErrorCode::Usage, "neither allow nor deny"),
            ("allow * *:0", ErrorCode::Usage, "1 to 65535"),
            ("allow * *:+22", ErrorCode::Usage, "1 to 65535"),
            ("allow * *:90-80", ErrorCode::Usage, "1 to 65535"),
            ("allow * *:22x", ErrorCode::Usage, "1 to 65535"),
            ("allow * *:22/icmp", ErrorCode::Usage, "ICMP has no ports"),
            ("allow * *:22/sctp", ErrorCode::Usage, "1 to 65535"),
            ("allow * node-1/sctp", ErrorCode::Usage, "neither a prefix nor a protocol"),
            ("allow 10.1.2.3/8 *", ErrorCode::Usage, "did you mean 10.0.0.0/8"),
            ("allow tag:Web *", ErrorCode::Usage, "lower-case"),
            ("allow nobody *", ErrorCode::NotFound, "nobody"),
        ] {
            let failure = rule(&policy(), typed).unwrap_err();
            assert!(
                failure.code == code && failure.message.contains(part) && failure.hint.is_some(),
                "{typed}: {failure}"
            );
        }
    }

    #[test]
    fn a_question_names_one_port_or_ping() {
        let ask = |source: &str, destination: &str| conversation(&policy(), source, destination);
        let ssh = ask("node-1", "node-2:22").unwrap();
        assert_eq!((ssh.destination, ssh.protocol, ssh.port), ([10, 64, 0, 2].into(), TCP, Some(22)));
        let v6 = ask("fd00::9", "node-2:53/udp").unwrap();
        assert_eq!((v6.destination, v6.protocol), ("fd00::2".parse().unwrap(), UDP));
        assert_eq!(ask("fd00::9", "node-2/icmp").unwrap().protocol, ICMPV6);
        for destination in ["node-2", "node-2:1-2", "node-2:22/icmp", "tag:web:22", "node-9:22"] {
            assert!(ask("node-1", destination).is_err(), "{destination}");
        }
        assert!(ask("fd00::9", "node-1:22").is_err(), "no IPv6");
    }
}
