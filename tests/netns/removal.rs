//! The lab itself: what it makes, it removes, however the test process ends.

use crate::lab::{Lab, eventually, own_namespaces};
use crate::node::Node;
use crate::small_disk::SmallDisk;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn hosts_reach_each_other_through_the_router_by_both_families() {
    let Some(mut lab) = Lab::new() else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    for address in [b.v4(), b.v6()] {
        let listener = b.run(|| std::net::TcpListener::bind((address, 7)).unwrap());
        let stream =
            a.run(|| std::net::TcpStream::connect_timeout(&(address, 7).into(), Duration::from_secs(5)).unwrap());
        assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
    }
}

#[test]
fn a_dropped_lab_leaves_no_namespace_and_no_process() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("host");
    let mut sleeper = host.spawn(host.command("sleep").arg("1000"));
    let name = host.namespace().to_owned();
    assert!(own_namespaces().contains(&name));
    drop(lab);
    assert!(!own_namespaces().contains(&name));
    assert!(!sleeper.0.wait().unwrap().success());
}

/// Plays the test process that is killed; does nothing unless told so.
#[test]
fn victim_of_the_next_test() {
    if std::env::var_os("P2PLUS_LAB_VICTIM").is_none() {
        return;
    }
    let mut lab = Lab::new().expect("the parent had a lab");
    let host = lab.host("victim");
    let node = Node::new(&host, "victim");
    let _disk = SmallDisk::under(&node);
    let _sleeper = host.spawn(host.command("sleep").arg("1000"));
    println!("ready");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn what_a_killed_test_process_left_is_removed_at_the_next_start() {
    if Lab::new().is_none() {
        return;
    }
    let exact = ["--exact", "--nocapture", "--test-threads=1"];
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .arg("removal::victim_of_the_next_test")
        .args(exact)
        .env("P2PLUS_LAB_VICTIM", "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let prefix = format!("p2pt-{}-", victim.id());
    let of_victim = || {
        let names =
            std::fs::read_dir("/run/netns").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&prefix)).collect::<Vec<_>>()
    };
    let pids = |namespace: &String| {
        let output = Command::new("ip").args(["netns", "pids", namespace]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let has_sleeper = || of_victim().iter().any(|namespace| !pids(namespace).is_empty());
    let disk = || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.starts_with(&prefix)).map(str::to_owned);
        line.and_then(|line| line.split(' ').nth(1).map(PathBuf::from))
    };
    // The disk comes before the sleeper; what is in the namespaces before it is there for a moment.
    let is_complete = || disk().is_some() && has_sleeper();
    assert!(eventually(Duration::from_secs(20), is_complete), "{:?}", of_victim());
    let left_disk = disk().unwrap();
    let left: Vec<String> = of_victim().iter().flat_map(pids).collect();
    victim.kill().unwrap();
    victim.wait().unwrap();
    // The next start: any test of this program in a new process.
    let next = Command::new(std::env::current_exe().unwrap())
        .arg("removal::hosts_reach_each_other_through_the_router_by_both_families")
        .args(exact)
        .output()
        .unwrap();
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
    // A third process may have been faster and be at it still.
    assert!(eventually(Duration::from_secs(5), || of_victim().is_empty()), "{:?}", of_victim());
    let gone = |pid: &String| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists();
    assert!(eventually(Duration::from_secs(5), || left.iter().all(gone)), "{left:?}");
    assert!(eventually(Duration::from_secs(5), || disk().is_none()), "{left_disk:?}");
    std::fs::remove_dir_all(left_disk.parent().unwrap()).unwrap();
}
