//! The whole network configuration of a host as text, to be compared byte by byte.

use crate::lab::Host;
use crate::node::Said;

/// Counters and secrets among the kernel's settings: they differ from one reading to the next, whoever does what.
const VOLATILE: [&str; 2] = ["nf_conntrack_count", "stable_secret"];

/// Links, addresses, routes, rules, nft tables and kernel settings of the host.
pub fn dump(host: &Host) -> String {
    let mut text = String::new();
    for words in ["-d link", "addr", "route show table all", "-6 route show table all", "rule", "-6 rule"] {
        text.push_str(&format!("# ip {words}\n{}", host.ip(words)));
    }
    text.push_str(&format!("# nft\n{}", nft(host, "list ruleset")));
    text.push_str(&format!("# sysctl\n{}", host.run(sysctls)));
    text
}

/// Every setting of the network of this thread's namespace.
fn sysctls() -> String {
    let entries = walkdir::WalkDir::new("/proc/sys/net").sort_by_file_name().into_iter().filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_type().is_file());
    let of_interest = files.filter(|entry| VOLATILE.iter().all(|name| entry.file_name() != *name));
    // Some can only be written.
    let lines = of_interest.filter_map(|entry| {
        let value = std::fs::read_to_string(entry.path()).ok()?;
        Some(format!("{} = {}\n", entry.path().display(), value.trim()))
    });
    lines.collect()
}

/// What nft says to these words on the host.
pub fn nft(host: &Host, words: &str) -> String {
    let said = Said::of(&host.command("nft").args(words.split(' ')).output().unwrap());
    assert_eq!(said.code, 0, "{words}: {said:?}");
    said.out
}

/// The lines of one text that the other lacks, both ways: what a failed comparison prints.
pub fn difference(before: &str, after: &str) -> String {
    let only = |sign: &str, these: &str, those: &str| -> String {
        let those: std::collections::BTreeSet<_> = those.lines().collect();
        these.lines().filter(|line| !those.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    only("-", before, after) + &only("+", after, before)
}

/// Nothing is left of what was done since `before` was read.
#[track_caller]
pub fn assert_untouched(before: &str, host: &Host) {
    let after = dump(host);
    assert!(before == after, "the host is not as it was before:\n{}", difference(before, &after));
}
