//! What a host's kernel is told about its links, and what it counts of TCP and UDP.

use crate::lab::Host;
use crate::node::Said;

/// What counts packets whose checksum was wrong: nothing on the way from one socket to another may make any.
const CHECKSUM_ERRORS: [&str; 5] =
    ["TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors", "IcmpInCsumErrors", "Icmp6InCsumErrors"];

/// Reads a counter of the host's kernel by the name that `nstat` has for it.
pub fn counted(host: &Host, name: &str) -> u64 {
    host.run(|| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        let in_rows = ["snmp", "netstat"].iter().find_map(|file| in_rows(&read(file), name));
        in_rows.or_else(|| in_lines(&read("snmp6"), name)).unwrap_or_else(|| panic!("nothing counts {name}"))
    })
}

/// Looks into a table of two rows for each protocol, `Tcp: NAME NAME …` and `Tcp: VALUE VALUE …`.
fn in_rows(table: &str, name: &str) -> Option<u64> {
    let rows: Vec<_> = table.lines().filter_map(|row| row.split_once(": ")).collect();
    let mut protocols = rows.chunks_exact(2).filter_map(|pair| Some((name.strip_prefix(pair[0].0)?, pair)));
    protocols.find_map(|(name, pair)| {
        let mut columns = pair[0].1.split(' ').zip(pair[1].1.split(' '));
        columns.find(|(column, _)| *column == name)?.1.parse().ok()
    })
}

/// Looks into a table of one line for each counter.
fn in_lines(table: &str, name: &str) -> Option<u64> {
    table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', '\t'])?.trim().parse().ok())
}

/// Nothing came to these hosts with a wrong checksum.
pub fn assert_undamaged(hosts: &[&Host]) {
    for host in hosts {
        for name in CHECKSUM_ERRORS {
            assert_eq!(counted(host, name), 0, "{name} of {host:?}");
        }
    }
}

/// How many packets and super-packets the host's kernel got from the tunnel's device.
pub fn device_packets(host: &Host) -> u64 {
    let listed: serde_json::Value = serde_json::from_str(&host.ip("-j -s link show p2p-lab")).unwrap();
    listed[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// Switches features of a link on and off, in the words of ethtool(8).
pub fn features(host: &Host, link: &str, words: &str) {
    let said = Said::of(&host.command("ethtool").args(["-K", link]).args(words.split(' ')).output().unwrap());
    assert_eq!(said.code, 0, "{words}: {said:?}");
}
