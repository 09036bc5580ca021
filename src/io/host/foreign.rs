//! Other programs' packet filters, as far as they are in the way of what is passed on: looked at, never touched.

use super::nft::{self, NftError};
use crate::io::device_name::DeviceName;
use serde::Deserialize;
use std::fmt;

/// A chain of somebody else's that drops what no rule of its own allows to be passed on; Docker's is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardBlocker {
    /// The family of its table: `ip`, `ip6` or `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl fmt::Display for ForwardBlocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

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
    blockers.retain(|it| !nft::run(&["list", "table", &it.family, &it.table], "").is_ok_and(|it| it.contains(&quoted)));
    Ok(blockers)
}

fn blockers_in(listing: &str) -> Result<Vec<ForwardBlocker>, serde_json::Error> {
    let listing: Listing = serde_json::from_str(listing)?;
    let is = |word: &Option<String>, wanted: &str| word.as_deref() == Some(wanted);
    let chains = listing.nftables.into_iter().filter_map(|item| item.chain);
    let in_the_way = chains.filter(|chain| is(&chain.hook, "forward") && is(&chain.verdict, "drop"));
    let routed = in_the_way.filter(|chain| matches!(chain.family.as_str(), "ip" | "ip6" | "inet"));
    Ok(routed.map(|Chain { family, table, name, .. }| ForwardBlocker { family, table, chain: name }).collect())
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
}
