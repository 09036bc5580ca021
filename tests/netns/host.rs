//! What a daemon changes on its host, and that nothing of it stays.

use crate::host_state::{assert_untouched, dump, nft};
use crate::lab::{Host, Lab, eventually};
use crate::node::{NETWORK, Node, PATIENCE, exchange, founder, pair};
use serde_json::json;
use std::time::Duration;

/// Tables, rules and routes of others: what Docker, an operator and another VPN may have on a host.
const FOREIGN_RULESET: &str = "
    table ip filter {
        chain DOCKER { }
        chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER; }
    }
    table ip nat {
        chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
            ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade; }
    }
    table inet p2plus-another {
        chain output { type filter hook output priority filter; policy accept; }
    }
";

fn founded(lab: &mut Lab) -> Node {
    let mut founder = founder(lab);
    founder.stop();
    founder
}

/// The rules of a host with these priorities, IPv4 and IPv6.
fn rules(host: &Host, priorities: &[u32]) -> usize {
    let count = |words: &str| {
        let listed = host.ip(words);
        listed.lines().filter(|line| priorities.iter().any(|it| line.starts_with(&format!("{it}:")))).count()
    };
    count("rule") + count("-6 rule")
}

fn table(host: &Host, table: u32) -> String {
    // A table that was never used is none.
    let list = |family: &str| {
        let output = host.command("ip").args([family, "route", "show", "table", &table.to_string()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    list("-4") + &list("-6")
}

#[test]
fn a_daemon_has_a_table_a_rule_and_a_packet_filter_of_its_own_and_takes_them_along() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founded(&mut lab);
    let host = founder.host().clone();
    let before = dump(&host);
    founder.start();
    assert!(eventually(PATIENCE, || table(&host, 52_800).matches("dev p2p-lab").count() == 2), "{}", founder.log());
    assert_eq!(rules(&host, &[5_100]), 2);
    let routes = table(&host, 52_800);
    assert_eq!(routes.matches("unreachable").count(), 2, "{routes}");
    // The main table has nothing of the overlay's: no other route there can come before it.
    assert!(!host.ip("route show table main").contains("p2p-lab") && !host.ip("-6 route").contains("fd"));
    assert!(nft(&host, "list tables").contains(&format!("table inet p2plus-{NETWORK}")));
    assert_eq!(founder.status()["network"]["problems"], json!([]));
    founder.stop();
    assert_untouched(&before, &host);
}

#[test]
fn what_a_killed_daemon_left_refuses_is_taken_over_by_the_next_one_and_cleaned_up() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, mut ada] = pair(&mut lab);
    let host = ada.host().clone();
    ada.stop();
    let before = dump(&host);
    ada.start();
    ada.meet(&founder);
    let addresses = [ada.v4(), ada.v6()];
    ada.kill();
    // The interface is gone; what is left sends nothing anywhere.
    assert!(!host.ip("link").contains("p2p-lab"));
    assert_eq!((rules(&host, &[5_100]), table(&host, 52_800).matches("unreachable").count()), (2, 2));
    assert!(nft(&host, "list tables").contains("p2plus-lab"));
    ada.start();
    ada.meet(&founder);
    exchange(&ada, &founder, [addresses[0], founder.v4()]);
    assert_eq!(rules(&host, &[5_100, 5_101]), 2, "the same slot");
    ada.kill();
    let undone = ada.say_inside(&["cleanup"]).data()["undone"].clone();
    let undone: Vec<_> = undone.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    assert_eq!(undone[1..], ["removed the nft table p2plus-lab", "removed the routing rules 5100 and table 52800"]);
    assert_untouched(&before, &host);
    assert_eq!(ada.say_inside(&["cleanup"]).data()["undone"], json!([]));
    // Without an interface the next start takes away what is of no use to it.
    ada.start();
    ada.kill();
    ada.start_with(&["--no-device"]);
    assert_untouched(&before, &host);
}

#[test]
fn a_hundred_ups_and_downs_some_of_them_hard_leave_a_host_as_it_was() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founded(&mut lab);
    let host = founder.host().clone();
    let before = dump(&host);
    for turn in 0..100 {
        founder.start();
        match turn % 5 {
            4 => founder.kill(),
            _ => founder.stop(),
        }
    }
    assert_ne!(dump(&host), before, "the last one was killed");
    founder.say_inside(&["cleanup"]).data();
    assert_untouched(&before, &host);
}

#[test]
fn two_daemons_on_one_host_do_not_get_in_each_other_s_way_nor_in_anybody_else_s() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founded(&mut lab);
    let host = founder.host().clone();
    host.rules(FOREIGN_RULESET);
    host.ip("rule add priority 5101 from 192.0.2.1 lookup 99");
    host.ip("rule add priority 5102 from all fwmark 0x500100 lookup 98");
    host.ip("route add 192.0.2.0/24 via 198.18.1.1 table 99");
    host.ip("route add 10.77.0.0/16 via 198.18.1.1");
    let before = dump(&host);

    let mut other = Node::new(&host, "other");
    other.ask(&["init", "other", "--name", "other", "--no-start"]);
    founder.start();
    other.start_with(&["--listen", "0.0.0.0:4700"]);
    for (node, name) in [(&founder, NETWORK), (&other, "other")] {
        node.wait_for("online");
        let count = || host.ip(&format!("route show table all dev p2p-{name}")).matches("table 528").count();
        assert!(eventually(PATIENCE, || count() == 2), "{}", node.log());
    }
    // Its own table among those of others, one of which it would have had.
    assert_eq!((rules(&host, &[5_100]), rules(&host, &[5_103])), (2, 2));

    // Neither takes what a dead one left for its own.
    founder.kill();
    other.kill();
    other.start_with(&["--listen", "0.0.0.0:4700"]);
    assert_eq!((rules(&host, &[5_100]), rules(&host, &[5_103])), (2, 2));
    assert!(table(&host, 52_800).contains("unreachable"));
    other.stop();
    founder.start();
    founder.stop();
    assert_untouched(&before, &host);
}

#[test]
fn rules_routes_and_filter_that_somebody_removes_come_back() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let host = ada.host();
    let before = (rules(host, &[5_100]), table(host, 52_800), nft(host, "list table inet p2plus-lab"));
    assert_eq!(before.0, 2);
    for words in [
        "rule del priority 5100",
        "-6 rule del priority 5100",
        "route flush table 52800",
        "-6 route flush table 52800",
        "route del unreachable 10.64.0.0/10 table 52800",
    ] {
        // The last one's prefix is the network's own.
        let pool = before.1.lines().find_map(|line| line.strip_prefix("unreachable ")?.split(' ').next()).unwrap();
        let words = words.replace("10.64.0.0/10", pool);
        host.ip(&words);
        let is_back = || rules(host, &[5_100]) == 2 && table(host, 52_800) == before.1;
        assert!(eventually(PATIENCE, is_back), "{words}: {}{}", host.ip("rule"), table(host, 52_800));
    }
    // Whoever reloads the firewall flushes it all; the next change of the network, or the next minute, brings it back.
    host.rules("flush ruleset");
    host.ip("addr add 198.51.100.7/32 dev lo");
    assert!(eventually(PATIENCE, || nft(host, "list ruleset").contains("p2plus-lab")));
    assert_eq!(nft(host, "list table inet p2plus-lab"), before.2);
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
}

#[test]
fn a_host_without_nft_is_told_of_it_and_has_its_overlay() {
    let Some(mut lab) = Lab::new() else { return };
    let [mut founder, ada] = pair(&mut lab);
    founder.stop();
    founder.hide_admin_programs();
    founder.start();
    founder.meet(&ada);
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
    let problems = founder.status()["network"]["problems"].clone();
    assert!(problems[0].as_str().unwrap().contains("install nftables"), "{problems}");
    assert!(founder.say_plainly(&["status"]).out.contains("install nftables"));
    let told = founder.log().lines().filter(|line| line.contains("install nftables")).count();
    assert_eq!(told, 1, "{}", founder.log());
    // What nothing guards is not passed on.
    founder.ask(&["advertise", "--exit"]);
    let forwards = || founder.host().run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap());
    assert!(!eventually(Duration::from_millis(300), || forwards().trim() == "1"), "an exit without a filter");
}

#[test]
fn cleanup_from_another_network_namespace_says_where_to_run_it_and_forgets_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founded(&mut lab);
    let host = founder.host().clone();
    let before = dump(&host);
    founder.start();
    founder.kill();
    let message = founder.say(&["cleanup"]).refusal(1);
    assert!(message.contains("another network namespace") && message.contains("lab.undo"), "{message}");
    founder.say_inside(&["cleanup"]).data();
    assert_untouched(&before, &host);
}

#[test]
fn a_firewall_that_drops_what_is_passed_on_is_told_with_the_words_that_help() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let (host, neighbour) = (ada.host(), lab.host("container"));
    neighbour.ip(&format!("link add lan0 type veth peer name lan0 netns {}", host.namespace()));
    for (host, number) in [(host, 1), (&neighbour, 2)] {
        host.ip(&format!("addr add 172.17.0.{number}/16 dev lan0"));
        host.ip("link set lan0 up");
    }
    host.sysctl("net/ipv4/ip_forward", "1");
    host.rules(FOREIGN_RULESET);
    // Nothing is passed on, so nothing is in the way.
    assert_eq!(ada.ask(&["reload"])["changed"], json!([]));
    assert_eq!(ada.status()["network"]["problems"], json!([]));
    ada.configure("[routes]\nforward_from = [\"lan0\"]\n");
    ada.ask(&["reload"]);
    let problem = ada.status()["network"]["problems"][0].as_str().unwrap().to_owned();
    let (_, help) = problem.split_once(": ").unwrap();
    assert!(problem.contains("`ip filter FORWARD`"), "{problem}");
    for words in help.split("; ") {
        nft(host, words.strip_prefix("nft ").unwrap());
    }
    ada.ask(&["reload"]);
    assert_eq!(ada.status()["network"]["problems"], json!([]));

    // The kernel's older tables drop beside the newer ones, and nft does not show them.
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        let run =
            |words: &str| assert!(host.command(program).args(words.split(' ')).status().unwrap().success(), "{words}");
        run("-P FORWARD DROP");
        ada.ask(&["reload"]);
        let problem = ada.status()["network"]["problems"][0].as_str().unwrap().to_owned();
        let (_, help) = problem.split_once(": ").unwrap();
        assert!(problem.contains(&format!("`{program} FORWARD`")), "{problem}");
        help.split("; ").for_each(|words| run(words.strip_prefix(program).unwrap().trim()));
        ada.ask(&["reload"]);
        assert_eq!(ada.status()["network"]["problems"], json!([]));
    }
    drop(founder);
}
