//! What keeps a daemon from starting: each is said with its cause, and nothing is lost by it.

use crate::image::Image;
use crate::lab::{Lab, eventually};
use crate::node::{NETWORK, Node, PATIENCE, PORT, founder, pair};
use serde_json::json;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_second_init_of_the_same_network_is_refused_and_loses_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    let id = founder.status()["network"]["id"].clone();
    founder.stop();
    let before = Image::of(&founder.state_dir());
    let message = founder.say(&["init", NETWORK, "--no-start"]).refusal(8);
    assert!(message.contains("exists already"), "{message}");
    assert!(Image::of(&founder.state_dir()) == before, "files changed");
    founder.start();
    assert_eq!(founder.status()["network"]["id"], id);
}

#[test]
fn a_key_file_that_others_can_read_keeps_the_daemon_from_starting() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    founder.stop();
    for name in ["identity", "node", "transport", "validator", "network-secret"] {
        let path = founder.state().join(format!("{name}.key"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let said = founder.run_daemon(&[]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.error.contains(path.to_str().unwrap()) && said.error.contains("0644"), "{said:?}");
        assert!(said.error.contains("chmod 600"), "{said:?}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }
    founder.start();
}

#[test]
fn an_unknown_configuration_key_is_pointed_at_by_the_daemon_and_by_a_reload() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    founder.configure("[node]\nlog_level = \"info\"\ncolour = \"red\"\n");
    let message = founder.say(&["reload"]).refusal(2);
    assert!(message.contains("colour") && message.contains("line 3"), "{message}");
    // A reload by the signal fails as well, and the daemon goes on with what it had.
    founder.signal(libc::SIGHUP);
    assert!(eventually(PATIENCE, || founder.log().contains("not reloaded")));
    assert_eq!(founder.status()["network"]["state"], "up");
    founder.stop();
    let said = founder.run_daemon(&[]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.error.contains("colour") && said.error.contains("line 3"), "{said:?}");
    founder.configure("[node]\nlog_level = \"debug\"\n");
    founder.start();
    assert!(eventually(PATIENCE, || founder.log().contains("DEBUG")));
}

#[test]
fn a_port_in_use_is_a_conflict_when_it_was_asked_for_and_replaced_for_good_when_not() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    founder.stop();
    let taken = founder.host().run(|| UdpSocket::bind(("0.0.0.0", PORT))).unwrap();
    let said = founder.run_daemon(&["--listen", &format!("0.0.0.0:{PORT}")]);
    assert_eq!(said.code, 8, "{said:?}");
    assert!(said.error.contains(&PORT.to_string()), "{said:?}");
    founder.start();
    let chosen = founder.status()["network"]["listen"].clone();
    assert!(!chosen.to_string().contains(&format!("0.0.0.0:{PORT}")), "{chosen}");
    founder.stop();
    drop(taken);
    founder.start();
    assert_eq!(founder.status()["network"]["listen"], chosen, "peers know it by this port now");
    // It was chosen, not asked for: whoever has it meanwhile keeps nothing from starting.
    founder.stop();
    let port = chosen[0].as_str().unwrap().parse::<SocketAddr>().unwrap().port();
    let _taken = founder.host().run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
    founder.start();
    assert!(!founder.status()["network"]["listen"].to_string().contains(&format!("0.0.0.0:{port}")));
}

#[test]
fn a_reload_tells_what_only_a_restart_changes() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    founder.stop();
    // The port of a flag is no change of the file.
    founder.start_with(&["--listen", "0.0.0.0:4700"]);
    assert_eq!(founder.ask(&["reload"]), json!({"changed": [], "needs_restart": []}));
    founder.configure("[underlay]\nlisten = [\"0.0.0.0:4701\"]\n");
    assert_eq!(founder.ask(&["reload"]), json!({"changed": [], "needs_restart": ["underlay.listen"]}));
}

#[test]
fn a_device_name_in_use_is_a_conflict() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    founder.stop();
    founder.host().ip(&format!("link add p2p-{NETWORK} type veth peer name other"));
    for (args, name) in [(&[][..], "p2p-lab"), (&["--device", "eth0"], "eth0")] {
        let said = founder.run_daemon(args);
        assert_eq!(said.code, 8, "{said:?}");
        assert!(said.error.contains(name), "{said:?}");
    }
    founder.start_with(&["--device", "overlay0"]);
    assert_eq!(founder.status()["network"]["device"], json!({"name": "overlay0", "mode": "tun", "mtu": 1400}));
    founder.stop();
    founder.start_with(&["--no-device"]);
    assert_eq!(founder.status()["network"]["device"]["mode"], "none");
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let said = founder.run_daemon(&["--listen", "0.0.0.0:0", "--device", "second"]);
    assert_eq!(said.code, 8, "{said:?}");
    assert!(said.error.contains(&founder.pid().to_string()), "{said:?}");
    // Another run folder does not help: the state folder is held as well.
    let elsewhere = tempfile::tempdir().unwrap();
    let run_dir = elsewhere.path().to_str().unwrap();
    let said = founder.run_daemon(&["--run-dir", run_dir, "--listen", "0.0.0.0:0", "--device", "second"]);
    assert_eq!(said.code, 8, "{said:?}");
    assert!(said.error.contains(&founder.pid().to_string()), "{said:?}");
    founder.ask(&["ping", "ada", "-c", "1"]);
    ada.ask(&["ping", "founder", "-c", "1"]);
}

#[test]
fn a_state_folder_of_another_network_is_refused() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    founder.stop();
    // The whole folder under another name.
    let moved = founder.state_dir().join("elsewhere");
    std::fs::rename(founder.state(), &moved).unwrap();
    let said = founder.run_daemon(&["-n", "elsewhere"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.error.contains("elsewhere") && said.error.contains(NETWORK), "{said:?}");
    std::fs::rename(&moved, founder.state()).unwrap();

    // The ledger of another network of the same name.
    let other = Node::new(&lab.host("other"), "other");
    other.ask(&["init", NETWORK, "--no-start"]);
    let before = Image::of(&founder.state());
    for name in ["ledger.redb", "ledger.mark"] {
        std::fs::copy(other.state().join(name), founder.state().join(name)).unwrap();
    }
    let said = founder.run_daemon(&[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.error.contains("another network"), "{said:?}");
    before.put_back(&founder.state());
    founder.start();
}

#[test]
fn what_a_killed_daemon_left_is_in_nobodys_way() {
    let Some(mut lab) = Lab::new() else { return };
    let mut founder = founder(&mut lab);
    founder.kill();
    founder.say(&["peers"]).refusal(3);
    let undone = founder.say_inside(&["cleanup"]).data()["undone"].clone();
    assert_eq!(undone.as_array().unwrap().len(), 3, "{undone}");
    assert_eq!(founder.say_inside(&["cleanup"]).data()["undone"], json!([]));
    founder.start();
    founder.kill();
    founder.start();
    founder.say(&["cleanup"]).refusal(8);
}
