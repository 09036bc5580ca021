//! What the tunnel carries: TCP and UDP of both families, over every kind of underlay; and the verbs that look at it.

use crate::lab::{Host, Lab, Underlay, eventually};
use crate::node::{NETWORK, Node, PATIENCE, PORT, exchange, pair, pair_on, transfer};
use serde_json::json;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;

/// What one TCP connection moves.
const TRANSFER_LEN: usize = 20_000_000;

/// Moves what there is to move and returns the endpoint at which `ada` has the founder.
fn carry_everything(founder: &Node, ada: &Node) -> SocketAddr {
    let v4 = [founder.v4(), ada.v4()];
    let v6 = [founder.v6(), ada.v6()];
    for [there, here] in [v4, v6] {
        transfer(ada, founder, there, TRANSFER_LEN);
        exchange(founder, ada, [there, here]);
        exchange(ada, founder, [here, there]);
    }
    let peer = ada.peer(founder);
    assert_eq!(peer["path"]["kind"], "direct", "{peer}");
    assert_eq!(peer["session"]["post_quantum"], true, "{peer}");
    assert!(peer["tx_bytes"].as_u64().unwrap() >= 2 * TRANSFER_LEN as u64, "{peer}");
    peer["path"]["endpoint"].as_str().unwrap().parse().unwrap()
}

#[test]
fn both_families_cross_an_ipv4_underlay() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("founder"), lab.host("ada")];
    // IPv6 stays on, for the overlay; the link has no address of it.
    hosts.iter().for_each(|host| drop(host.ip(&format!("addr del {}/64 dev eth0", host.v6()))));
    let [founder, ada] = pair_on([&hosts[0], &hosts[1]], Host::v4);
    assert_eq!(carry_everything(&founder, &ada), founder.endpoint());
}

#[test]
fn both_families_cross_an_ipv6_underlay_between_hosts_that_have_nothing_else() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host_with("founder", Underlay::V6), lab.host_with("ada", Underlay::V6)];
    let [founder, ada] = pair_on([&hosts[0], &hosts[1]], Host::v6);
    assert_eq!(carry_everything(&founder, &ada), (hosts[0].v6(), PORT).into());
}

#[test]
fn a_host_with_ipv6_alone_meets_one_with_both_by_a_ticket_that_names_both() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("founder"), lab.host_with("ada", Underlay::V6)];
    let [mut founder, mut ada] = [Node::new(&hosts[0], "founder"), Node::new(&hosts[1], "ada")];
    founder.found();
    let second = SocketAddr::new(hosts[0].v6(), PORT).to_string();
    ada.join(&founder.invite(&["--endpoint", &second]));
    founder.meet(&ada);
    assert_eq!(carry_everything(&founder, &ada), (hosts[0].v6(), PORT).into());
}

#[test]
fn a_host_without_ipv6_in_its_kernel_still_has_the_ipv4_of_the_overlay() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("founder"), lab.host_with("ada", Underlay::V4)];
    let [founder, ada] = pair_on([&hosts[0], &hosts[1]], Host::v4);
    transfer(&ada, &founder, founder.v4(), 1_000_000);
    exchange(&founder, &ada, [founder.v4(), ada.v4()]);
}

#[test]
fn the_first_packets_of_both_sides_at_once_both_arrive() {
    let Some(mut lab) = Lab::new() else { return };
    let mut nodes = pair(&mut lab);
    let addresses = [nodes[0].v4(), nodes[1].v4()];
    for round in 0..5 {
        // No session before both have sent.
        lab.router()
            .rules("table inet closed { chain forward { type filter hook forward priority 0; policy drop; }; }");
        nodes.iter_mut().for_each(Node::kill);
        nodes.iter_mut().for_each(|node| node.launch(&[]));
        nodes.iter().for_each(|node| node.wait_for("online"));
        let sockets = [nodes[0].udp(addresses[0]), nodes[1].udp(addresses[1])];
        let targets = [sockets[1].local_addr().unwrap(), sockets[0].local_addr().unwrap()];
        for (socket, target) in sockets.iter().zip(targets) {
            socket.send_to(b"first", target).unwrap();
        }
        lab.router().rules("delete table inet closed");
        for (socket, target) in sockets.iter().zip(targets) {
            let mut buffer = [0; 10];
            // A machine that is halted for a moment interrupts the call.
            let (len, source) = loop {
                match socket.recv_from(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    outcome => break outcome.unwrap_or_else(|error| panic!("round {round}: {error}")),
                }
            };
            assert_eq!((&buffer[..len], source), (b"first".as_slice(), target), "round {round}");
        }
    }
}

#[test]
fn the_verbs_that_look_name_the_peer_its_addresses_and_the_way_to_it() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let (v4, v6) = (ada.v4(), ada.v6());
    assert_eq!(founder.ask(&["ip", "ada"]), json!({"addresses": [v4, v6]}));

    let report = founder.ask(&["ping", "ada", "-c", "2"]);
    assert_eq!((&report["peer"], &report["sent"], &report["received"]), (&json!("ada"), &json!(2), &json!(2)));
    let path = json!({"kind": "direct", "endpoint": ada.endpoint(), "relay": null});
    assert_eq!((&report["replies"][1]["seq"], &report["replies"][1]["path"]), (&json!(2), &path));
    assert!(report["replies"][1]["rtt_ms"].as_f64().unwrap() > 0.0);

    let id = ada.status()["node"]["id"].as_str().unwrap().to_owned();
    for what in [v4.to_string(), v6.to_string(), "ada".to_owned(), id.clone()] {
        let found = founder.ask(&["whois", &what]);
        assert_eq!((&found["id"], &found["name"]), (&json!(id), &json!("ada")), "{what}");
        assert_eq!(found["authorization"], "member");
    }
    founder.say(&["whois", "nobody"]).refusal(5);
    founder.say(&["ping", "nobody"]).refusal(5);
    founder.say(&["ping", "founder"]).refusal(2);

    let peer = founder.peer(&ada);
    assert_eq!((&peer["id"], &peer["path"], &peer["addresses"]), (&json!(id), &path, &json!([v4, v6])));

    for condition in ["online", "synced", "peer=ada", "direct=ada", "height=1"] {
        assert_eq!(founder.ask(&["wait", "--for", condition])["for"], condition);
    }
    // Names that nobody has, and heights that are not there yet, are waited for.
    for condition in ["peer=nobody", "height=1000"] {
        founder.say(&["wait", "--for", condition, "--timeout", "0.3"]).refusal(7);
    }
}

#[test]
fn a_daemon_says_that_it_is_ready_while_it_still_waits_for_the_founder() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = crate::node::founder(&mut lab);
    let ticket = founder.invite(&[]);
    founder.stop();
    let mut ada = Node::new(&lab.host("ada"), "ada");
    ada.ask(&["join", &ticket, "--name", "ada", "--no-start"]);
    ada.start();
    let status = ada.status();
    assert_eq!((&status["network"]["state"], &status["network"]["name"]), (&json!("joining"), &json!(NETWORK)));
    assert!(status["network"]["reason"].is_string(), "{status}");
    ada.say(&["wait", "--for", "online", "--timeout", "0.3"]).refusal(7);
    founder.start();
    ada.wait_for("online");
    founder.meet(&ada);
    ada.stop();
    ada.say(&["peers"]).refusal(3);
    ada.say(&["wait", "--for", "online", "--timeout", "0.3"]).refusal(7);
}

#[test]
fn a_service_manager_is_told_when_the_daemon_is_ready() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = Node::new(&lab.host("founder"), "founder");
    founder.ask(&["init", NETWORK, "--no-start"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    founder.set_environment("NOTIFY_SOCKET", path.to_str().unwrap());
    founder.start();
    let mut buffer = [0; 100];
    let len = manager.recv(&mut buffer).unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..len]).unwrap().trim_end(), "READY=1");
    // Not before the control socket answers.
    founder.status();
    assert!(eventually(PATIENCE, || founder.status()["network"]["state"] == "up"));
}

/// How often the threads of a daemon whose names begin so have waited, by name.
fn waits(node: &Node, prefix: &str) -> Vec<(String, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
    let of_task = |folder: std::path::PathBuf| {
        let name = std::fs::read_to_string(folder.join("comm")).unwrap().trim().to_owned();
        let status = std::fs::read_to_string(folder.join("status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        (name, count.trim().parse().unwrap())
    };
    let all = tasks.map(|task| of_task(task.unwrap().path()));
    all.filter(|(name, _)| name.starts_with(prefix)).collect()
}

#[test]
fn many_flows_share_all_threads_of_both_nodes_and_arrive_whole() {
    let Some(mut lab) = Lab::new() else { return };
    let queues = 3;
    let mut nodes = ["founder", "ada"].map(|name| Node::new(&lab.host(name), name));
    nodes.iter().for_each(|node| node.configure(&format!("[tunnel]\nqueues = {queues}\n")));
    let [founder, ada] = &mut nodes;
    founder.found();
    ada.join(&founder.invite(&[]));
    founder.meet(ada);
    let (founder, ada) = (&*founder, &*ada);
    std::thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| transfer(ada, founder, founder.v4(), TRANSFER_LEN / 48));
        }
    });
    for (node, prefix) in [(ada, "p2p-device-"), (founder, "p2p-udp-0-")] {
        let waits = waits(node, prefix);
        assert_eq!(waits.len(), queues, "{waits:?}");
        assert!(waits.iter().all(|(_, count)| *count > 10), "a thread that carries nothing: {waits:?}");
    }
}
