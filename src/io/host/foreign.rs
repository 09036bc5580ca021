//! Other programs' packet filters, as far as they are in the way of what is passed on: looked at, never touched.

use super::nft::{self, NftError};
use crate::io::device_name::DeviceName;
use serde::Deserialize;
use std::fmt;

/// A chain of somebody else's that drops what no rule of its own allows to be passed on; Docker's is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForwardBlocker {
    /// A chain of nftables.
    Chain {
        /// The family of its table: `ip`, `ip6` or `inet`.
        family: String,
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
    },
    /// The chain FORWARD of the kernel's older tables, which nft does not show, by the program that shows them.
    Legacy(&'static str),
}

impl fmt::Display for ForwardBlocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain { family, table, chain } => write!(f, "{family} {table} {chain}"),
            Self::Legacy(program) => write!(f, "{program} FORWARD"),
        }
    }
}

impl ForwardBlocker {
    /// What a person types so that it lets through what comes and goes by an interface.
    pub fn remedy(&self, device: &DeviceName) -> String {
        match self {
            Self::Chain { .. } => {
                format!(
                    "nft insert rule {self} oifname {device} accept; nft insert rule {self} iifname {device} accept"
                )
            }
            Self::Legacy(program) => {
                format!("{program} -I FORWARD -o {device} -j ACCEPT; {program} -I FORWARD -i {device} -j ACCEPT")
            }
        }
    }
}

/// Where the kernel says which of the older tables there are, and what shows them.
const LEGACY_TABLES: [(&str, &str); 2] = [
    ("/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
];

/// What `nft -j list chains` says, as far as it matters here (libnftables-json(5)).
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    #[serde(rename = "policy")]
    verdict: Option<String>,
}

/// Lists the chains that are in the way of what is passed on by `device`: not those whose tables name it, because somebody thought of it.
///
/// # Errors
/// [`NftError`]: nft cannot be asked, or its answer is not understood.
pub(super) fn forward_blockers(device: &DeviceName) -> Result<Vec<ForwardBlocker>, NftError> {
    let said = nft::run(&["-j", "list", "chains"], "")?;
    let mut blockers = blockers_in(&said).map_err(|error| NftError::Io(error.into()))?;
    let quoted = format!("\"{device}\"");
    let names_it = |family: &str, table: &str| {
        nft::run(&["list", "table", family, table], "").is_ok_and(|it| it.contains(&quoted))
    };
    blockers.retain(
        |it| !matches!(it, ForwardBlocker::Chain { family, table, .. } if names_it(family.as_str(), table.as_str())),
    );
    blockers.extend(legacy_blockers(device));
    Ok(blockers)
}

/// The same of the older tables, as far as there are any and somebody can show them.
fn legacy_blockers(device: &DeviceName) -> impl Iterator<Item = ForwardBlocker> {
    let has_filter = |path: &str| std::fs::read_to_string(path).is_ok_and(|it| it.lines().any(|name| name == "filter"));
    let used = LEGACY_TABLES.into_iter().filter(move |(path, _)| has_filter(path));
    used.filter_map(move |(_, program)| match nft::run_program(program, &["-w", "2", "-S", "FORWARD"], "") {
        Ok(rules) => legacy_drops(&rules, device).then_some(ForwardBlocker::Legacy(program)),
        Err(error) => {
            tracing::debug!(program, %error, "nothing shows whether a chain drops what is passed on");
            None
        }
    })
}

fn legacy_drops(rules: &str, device: &DeviceName) -> bool {
    rules.lines().any(|rule| rule == "-P FORWARD DROP") && !rules.split_whitespace().any(|word| word == device.as_str())
}

fn blockers_in(listing: &str) -> Result<Vec<ForwardBlocker>, serde_json::Error> {
    let listing: Listing = serde_json::from_str(listing)?;
    let is = |word: &Option<String>, wanted: &str| word.as_deref() == Some(wanted);
    let chains = listing.nftables.into_iter().filter_map(|item| item.chain);
    let in_the_way = chains.filter(|chain| is(&chain.hook, "forward") && is(&chain.verdict, "drop"));
    let routed = in_the_way.filter(|chain| matches!(chain.family.as_str(), "ip" | "ip6" | "inet"));
    Ok(routed.map(|Chain { family, table, name, .. }| ForwardBlocker::Chain { family, table, chain: name }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chains_that_drop_by_default_what_is_passed_on_are_in_the_way() {
        let listing = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER", "handle": 1}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 3, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "p2plus-lab", "name": "forward", "handle": 4, "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}},
            {"chain": {"family": "bridge", "table": "b", "name": "forward", "handle": 5, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}
        ]}"#;
        let found = blockers_in(listing).unwrap();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ip filter FORWARD"]);
        assert!(blockers_in(r#"{"nftables": []}"#).unwrap().is_empty());
        assert!(blockers_in("").is_err());
    }

    #[test]
    fn the_older_tables_are_in_the_way_when_they_drop_by_default_and_do_not_name_the_interface() {
        let device = "p2p-lab".parse().unwrap();
        for (rules, expected) in [
            ("-P FORWARD ACCEPT\n-A FORWARD -j DOCKER-USER\n", false),
            ("-P FORWARD DROP\n-A FORWARD -o docker0 -j DOCKER\n", true),
            ("-P FORWARD DROP\n-A FORWARD -i p2p-lab2 -j ACCEPT\n", true),
            ("-P FORWARD DROP\n-A FORWARD -i p2p-lab -j ACCEPT\n", false),
        ] {
            assert_eq!(legacy_drops(rules, &device), expected, "{rules}");
        }
    }
}
