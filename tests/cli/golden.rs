//! Every answer against its golden files: the JSON, and the text for people.

use crate::scripted::Scripted;
use crate::{Host, samples};
use p2plus::daemon::api::server::Response;
use p2plus::daemon::api::types::{Event, NetworkState};
use std::path::Path;

/// Compares `text` with a golden file, or writes it when asked to.
pub fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name);
    if std::env::var_os("P2PLUS_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} differs from its golden file");
}

/// JSON as a golden file has it: indented, one line feed at the end.
fn pretty(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

fn sample_host() -> (Host, Scripted) {
    let host = Host::with_networks(&["lab"]);
    let mut probes = 0;
    let daemon = Scripted::start(&host, move |request| {
        use p2plus::daemon::api::request::{Reply, Request};
        if let Request::Ping(_) = request {
            probes += 1;
            return Ok(Reply::Ping(samples::ping(probes)).into());
        }
        Ok(samples::reply(request).into())
    });
    (host, daemon)
}

#[test]
fn every_answer_is_the_documented_json_and_the_usual_text() {
    let id = "7".repeat(64);
    let commands: [(&str, &[&str]); 46] = [
        ("status", &["status"]),
        ("peers", &["peers"]),
        ("ip", &["ip"]),
        ("whois", &["whois", "10.77.0.2"]),
        ("wait", &["wait", "--for", "peer=b"]),
        ("members", &["members"]),
        ("authorize", &["authorize", &id, "--name", "b", "--tag", "web"]),
        ("revoke", &["revoke", "c", "--reason", "lost"]),
        ("revoke-no-wait", &["revoke", "c", "--no-wait"]),
        ("rename", &["rename", "b", "bee"]),
        ("invite", &["invite", "--name", "b"]),
        ("invite-needs-approval", &["invite", "--needs-approval"]),
        ("invites", &["invites"]),
        ("invites-revoke", &["invites", "revoke", "c0c1c2"]),
        ("tag", &["tag", "b", "+web", "-db"]),
        ("allow", &["allow", "b", "c:22/tcp"]),
        ("deny-no-wait", &["deny", "tag:guest", "*", "--no-wait"]),
        ("policy-show", &["policy", "show"]),
        ("policy-rm", &["policy", "rm", "1"]),
        ("policy-apply", &["policy", "apply", "tests/cli/golden/rules.policy"]),
        ("policy-apply-dry-run", &["policy", "apply", "tests/cli/golden/rules.policy", "--dry-run"]),
        ("explain", &["explain", "b", "192.168.7.9:22"]),
        ("explain-uncovered", &["explain", "b", "192.168.7.9:23"]),
        ("routes", &["routes"]),
        ("advertise", &["advertise", "192.168.1.0/24", "--map", "172.20.1.0/24", "--exit"]),
        ("unadvertise", &["unadvertise", "172.20.1.0/24", "--for", "b", "--no-wait"]),
        ("requests", &["requests"]),
        ("approve", &["approve", "0123"]),
        ("refuse", &["refuse", "0123"]),
        ("accept", &["accept", "172.20.1.0/24"]),
        ("unaccept", &["unaccept", "all"]),
        ("exit-node-list", &["exit-node", "list"]),
        ("exit-node-use", &["exit-node", "use", "c"]),
        ("exit-node-off", &["exit-node", "off"]),
        ("ledger-upgrade", &["ledger", "upgrade"]),
        ("ledger-status", &["ledger", "status"]),
        ("ledger-log", &["ledger", "log"]),
        ("ledger-show-block", &["ledger", "show", "12"]),
        ("ledger-show-tx", &["ledger", "show", "5a5b"]),
        ("ledger-verify", &["ledger", "verify"]),
        ("name-add", &["name", "add", "@", "mx", "10", "mail"]),
        ("name-rm", &["name", "rm", "mail.lab.internal", "address", "b"]),
        ("name-list", &["name", "list"]),
        ("dns-status", &["dns", "status"]),
        ("dns-query", &["dns", "query", "b", "MX"]),
        ("reload", &["reload"]),
    ];
    check_all(&commands);
}

#[test]
fn segments_and_bridges_are_the_documented_json_and_the_usual_text() {
    check_all(&[
        ("segment-list", &["segment", "list"]),
        ("segment-add", &["segment", "add", "lab", "--tag", "lan", "--gateway", "b", "--storm-limit", "500"]),
        ("segment-rm", &["segment", "rm", "lab"]),
        ("bridge-list", &["bridge", "list"]),
        ("bridge-add", &["bridge", "add", "eth1", "lab"]),
        ("bridge-add-no-wait", &["bridge", "add", "eth1", "lab", "--no-wait"]),
        ("bridge-rm", &["bridge", "rm", "eth1"]),
        ("bridge-approve", &["bridge", "approve", "lab", "b"]),
        ("bridge-revoke", &["bridge", "revoke", "lab", "b"]),
    ]);
}

#[test]
fn relays_and_static_endpoints_are_the_documented_json_and_the_usual_text() {
    check_all(&[
        ("relay-on", &["relay", "on", "--endpoint", "203.0.113.7:4647", "--tls-port", "443", "--class", "3"]),
        ("relay-status", &["relay", "status"]),
        ("why", &["why", "b"]),
        ("netcheck", &["netcheck"]),
        ("relay-off", &["relay", "off", "--for", "b", "--no-wait"]),
        ("ledger-endpoints", &["ledger", "endpoints", "203.0.113.7:4647", "[2001:db8::7]:4647"]),
        ("ledger-endpoints-none", &["ledger", "endpoints", "--peer", "b"]),
    ]);
}

/// Compares what each command prints, as JSON and as text, with the files of its name.
fn check_all(commands: &[(&str, &[&str])]) {
    let (host, _daemon) = sample_host();
    for (name, args) in commands {
        let json = host.run(&[args, &["--json"][..]].concat());
        assert_eq!((json.code, json.stderr.as_str()), (0, ""), "{name}");
        check(&format!("{name}.json"), &pretty(&json.stdout));
        let text = host.run(args);
        assert_eq!(text.code, 0, "{name}: {text:?}");
        check(&format!("{name}.txt"), &text.stdout);
    }
}

#[test]
fn a_test_of_the_rules_that_fails_is_exit_code_10() {
    let (host, _daemon) = sample_host();
    let args = ["policy", "test", "tests/cli/golden/rules.policy"];
    let text = host.run(&args);
    assert_eq!(text.code, 10, "{text:?}");
    check("policy-test.txt", &text.stdout);
    let json = host.run(&[&args[..], &["--json"]].concat());
    assert_eq!(json.code, 10);
    check("policy-test.json", &pretty(&json.stdout));
}

#[test]
fn networks_names_each_network_and_its_state() {
    let (host, _daemon) = sample_host();
    std::fs::create_dir_all(host.state_dir().join("home")).unwrap();
    check("networks.json", &pretty(&host.run(&["networks", "--json"]).stdout));
    check("networks.txt", &host.run(&["networks"]).stdout);
}

#[test]
fn a_joining_node_says_what_it_waits_for() {
    let host = Host::with_networks(&["lab"]);
    let _daemon = Scripted::start(&host, |_| {
        use p2plus::daemon::api::request::Reply;
        let warnings = vec!["the clock of this machine is 3 h behind".to_owned()];
        Ok(Response { reply: Reply::Status(Box::new(samples::joining())), warnings })
    });
    check("status-joining.json", &pretty(&host.run(&["status", "--json"]).stdout));
    let text = host.run(&["status"]);
    check("status-joining.txt", &text.stdout);
    assert_eq!(text.stderr, "warning: the clock of this machine is 3 h behind\n");
}

#[test]
fn a_ledger_that_stands_still_says_why() {
    let host = Host::with_networks(&["lab"]);
    let _daemon = Scripted::start(&host, |request| {
        use p2plus::daemon::api::request::{Reply, Request};
        Ok(match request {
            Request::Status => Reply::Status(Box::new(samples::halted())),
            _ => Reply::LedgerStatus(samples::halted().ledger),
        }
        .into())
    });
    for (name, args) in [("status-halted", ["status"].as_slice()), ("ledger-status-halted", &["ledger", "status"])] {
        check(&format!("{name}.txt"), &host.run(args).stdout);
        check(&format!("{name}.json"), &pretty(&host.run(&[args, &["--json"]].concat()).stdout));
    }
}

#[test]
fn an_overlay_that_overlaps_the_host_says_with_what() {
    let host = Host::with_networks(&["lab"]);
    let _daemon = Scripted::start(&host, |_| {
        use p2plus::daemon::api::request::Reply;
        Ok(Reply::Status(Box::new(samples::overlapped())).into())
    });
    check("status-overlapped.txt", &host.run(&["status"]).stdout);
    check("status-overlapped.json", &pretty(&host.run(&["status", "--json"]).stdout));
}

#[test]
fn ping_prints_each_answer_as_it_comes_and_stops_at_a_direct_one() {
    let (host, _daemon) = sample_host();
    let text = host.run(&["ping", "b", "-c", "9", "--until-direct"]);
    assert_eq!(text.code, 0, "{text:?}");
    check("ping.txt", &text.stdout);
    check("ping.json", &pretty(&host.run(&["ping", "b", "-c", "1", "--json"]).stdout));
}

#[test]
fn events_are_one_json_object_per_line() {
    let peer = || "b0b1".to_owned();
    let name = || "b".to_owned();
    let events = [
        Event::State { state: NetworkState::Refused, reason: Some("the ticket was used".to_owned()) },
        Event::Path { peer: peer(), name: name(), path: samples::peers()[0].path.clone() },
        Event::Block { height: 12, hash: "0001".to_owned() },
        Event::Revoked { peer: peer(), name: name() },
        Event::Lagged { missed: 4 },
    ];
    let lines: String = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
    check("events.ndjson", &lines);
}
