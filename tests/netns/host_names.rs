//! Where the programs of a host ask for names: told to a real systemd-resolved, to both kinds of resolvconf, written into the file; and taken
//! back, whatever ends the daemon. A resolver on the LAN writes down what it hears.

use crate::lab::{Host, Lab, Running, eventually};
use crate::node::{NETWORK, Node, PATIENCE};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};

/// Where scripts/lib/packages.sh unpacks what must not be installed.
const UNPACKED: &str = "/var/cache/p2plus-unpacked";
/// What the LAN's resolver answers to everything.
const LIE: [u8; 4] = [203, 0, 113, 66];
/// The interface of the labs' network.
const DEVICE: &str = "p2p-lab";

/// A resolver on the LAN that claims every name, and remembers what it was asked.
struct LanResolver {
    address: IpAddr,
    heard: Arc<Mutex<Vec<String>>>,
}

impl LanResolver {
    fn start(lab: &mut Lab) -> Self {
        let host = lab.host("lan");
        let socket = host.run(|| UdpSocket::bind((host.v4(), 53))).unwrap();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let inside = Arc::clone(&heard);
        // Ends with the test process: nobody waits for it.
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut query) {
                let Some((name, end)) = question(&query[..len]) else { continue };
                inside.lock().unwrap().push(name);
                let is_a = query[end - 4..end - 2] == [0, 1];
                let mut answer = query[..end].to_vec();
                (answer[2], answer[3]) = (0x84, 0x80);
                answer[6..12].copy_from_slice(&[0, u8::from(is_a), 0, 0, 0, 0]);
                if is_a {
                    answer.extend([&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4][..], &LIE].concat());
                }
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { address: host.v4(), heard }
    }

    /// Whether it heard of a name that ends so.
    fn heard(&self, suffix: &str) -> bool {
        self.heard.lock().unwrap().iter().any(|name| name.ends_with(suffix))
    }
}

/// The name in a query, in lower case, and where the question ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let len = usize::from(*query.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + len)?).to_lowercase());
        at += len;
    }
    query.get(at..at + 4)?;
    Some((labels.join("."), at + 4))
}

/// A systemd-resolved in a mount namespace of its own.
struct Resolved {
    child: Child,
    orders: ChildStdin,
    said: BufReader<std::process::ChildStdout>,
}

impl Resolved {
    fn start(host: &Host, nameserver: IpAddr) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns/resolved.sh");
        let mut command = host.command(script);
        command.arg(Path::new(UNPACKED).join("systemd-resolved")).arg(nameserver.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (orders, said) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut resolved = Self { child, orders, said };
        resolved.expect_ready();
        resolved
    }

    fn expect_ready(&mut self) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
    }

    fn restart(&mut self) {
        self.orders.write_all(b"restart\n").unwrap();
        self.expect_ready();
    }
}

impl Drop for Resolved {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `getent ahostsv4` says of a name on a host: its first address.
fn resolve(host: &Host, name: &str) -> Option<String> {
    let output = host.command("getent").args(["ahostsv4", name]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().map(str::to_owned)
}

/// Waits until the daemon says in which way the host was told.
#[track_caller]
fn told_by(node: &Node, way: &str) {
    let is_told = eventually(PATIENCE, || node.ask(&["dns", "status"])["host"]["used"] == way);
    assert!(is_told, "{}", node.ask(&["dns", "status"]));
}

#[test]
fn systemd_resolved_asks_here_for_the_zone_and_elsewhere_for_the_rest() {
    let Some(mut lab) = Lab::new() else { return };
    let lan = LanResolver::start(&mut lab);
    let plain = lab.host("founder");
    let mut resolved = Resolved::start(&plain, lan.address);
    let mut node = Node::new(&plain.beside(resolved.child.id()), "founder");
    node.found();
    told_by(&node, "resolved");
    let (host, v4) = (node.host().clone(), node.v4().to_string());
    assert_eq!(resolve(&host, "founder.lab.internal"), Some(v4.clone()));
    assert_eq!(resolve(&host, "nobody.lab.internal"), None);
    assert_eq!(resolve(&host, "example.com"), Some(IpAddr::from(LIE).to_string()));
    let reverse = host.command("getent").args(["hosts", &v4]).output().unwrap();
    assert!(String::from_utf8_lossy(&reverse.stdout).contains("founder.lab.internal"), "{reverse:?}");
    assert!(lan.heard("example.com") && !lan.heard("internal") && !lan.heard("in-addr.arpa"), "{:?}", lan.heard);
    let link = |verb: &str| {
        let output = host.command("resolvectl").args([verb, DEVICE]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(link("domain").contains("~lab.internal") && link("default-route").trim().ends_with("no"));

    resolved.restart();
    assert!(eventually(PATIENCE, || resolve(&host, "founder.lab.internal").as_ref() == Some(&v4)), "nobody told it");

    node.configure("[dns]\nbackend = \"none\"\n");
    node.ask(&["reload"]);
    assert!(eventually(PATIENCE, || !link("domain").contains("lab.internal")), "{}", link("domain"));
    node.configure("");
    node.ask(&["reload"]);
    told_by(&node, "resolved");
    node.kill();
    let is_forgotten = || resolve(&host, "founder.lab.internal") != Some(v4.clone());
    assert!(eventually(PATIENCE, is_forgotten), "the link is gone, and what was told of it with it");
}

/// A host whose `/etc/resolv.conf` is its own, and names the resolver of the LAN.
struct OwnFile(PathBuf);

impl OwnFile {
    fn of(host: &Host, nameserver: IpAddr) -> Self {
        let folder = Path::new("/etc/netns").join(host.namespace());
        std::fs::create_dir_all(&folder).unwrap();
        let file = Self(folder.join("resolv.conf"));
        std::fs::write(&file.0, format!("# by hand\nnameserver {nameserver}\n")).unwrap();
        file
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

#[test]
fn the_file_is_written_when_asked_for_and_is_what_it_was_in_the_end() {
    let Some(mut lab) = Lab::new() else { return };
    let lan = LanResolver::start(&mut lab);
    let host = lab.host("founder");
    let file = OwnFile::of(&host, lan.address);
    let before = file.text();
    let mut node = Node::new(&host, "founder");
    node.found();
    assert!(eventually(PATIENCE, || node.ask(&["dns", "status"])["host"]["reason"].is_string()));
    assert_eq!(file.text(), before, "nobody asked for it");
    node.configure("[dns]\nbackend = \"file\"\n");
    node.ask(&["reload"]);
    told_by(&node, "file");
    let v4 = node.v4().to_string();
    assert_eq!(resolve(&host, "founder.lab.internal"), Some(v4.clone()));
    assert_eq!(resolve(&host, "nobody.lab.internal"), None);
    assert_eq!(resolve(&host, "example.com"), Some(IpAddr::from(LIE).to_string()));
    assert!(lan.heard("example.com") && !lan.heard("internal"), "{:?}", lan.heard);
    // Somebody else, a DHCP client for example, writes it anew.
    std::fs::write(&file.0, &before).unwrap();
    assert!(eventually(PATIENCE, || file.text().contains(".53\n")), "it was not told again");
    node.stop();
    assert_eq!(file.text(), before);
    node.start();
    told_by(&node, "file");
    node.kill();
    assert_ne!(file.text(), before);
    let cleaned = node.inside(&["-n", NETWORK, "cleanup", "--json"]).data();
    assert!(cleaned["undone"].to_string().contains("resolv.conf"), "{cleaned}");
    assert_eq!(file.text(), before);
}

#[test]
fn a_daemon_that_was_killed_is_cleaned_up_after_by_the_next() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("founder");
    let file = OwnFile::of(&host, host.v4());
    let before = file.text();
    let mut node = Node::new(&host, "founder");
    node.configure("[dns]\nbackend = \"file\"\n");
    node.found();
    told_by(&node, "file");
    node.kill();
    node.configure("[dns]\nbackend = \"none\"\n");
    node.start();
    assert!(eventually(PATIENCE, || file.text() == before), "{}", file.text());
}

#[test]
fn what_was_told_for_an_interface_of_another_name_is_cleaned_up_too() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.host("founder");
    let file = OwnFile::of(&host, host.v4());
    let before = file.text();
    let mut node = Node::new(&host, "founder");
    node.configure("[dns]\nbackend = \"file\"\n");
    node.found();
    node.stop();
    let cleanup = |node: &Node| node.inside(&["-n", NETWORK, "cleanup", "--json"]).data();
    for is_next in [false, true] {
        node.start_with(&["--device", "other7"]);
        told_by(&node, "file");
        node.kill();
        assert_ne!(file.text(), before);
        if is_next {
            node.start_with(&["--no-device"]);
            node.stop();
        } else {
            assert!(cleanup(&node)["undone"].to_string().contains("took the server of other7 out"));
        }
        assert_eq!(file.text(), before);
    }
    assert_eq!(cleanup(&node)["undone"], serde_json::json!([]));
}

/// Both kinds of resolvconf put our server first, and take it out again.
#[test]
fn resolvconf_of_either_kind_puts_the_zone_first() {
    let Some(mut lab) = Lab::new() else { return };
    let lan = LanResolver::start(&mut lab);
    for kind in ["resolvconf", "openresolv"] {
        let plain = lab.host(kind);
        let world = resolvconf_world(&plain, kind, lan.address);
        let mut node = Node::new(&plain.beside(world.0.id()), "founder");
        node.found();
        told_by(&node, "resolvconf");
        let (host, v4) = (node.host().clone(), node.v4().to_string());
        assert_eq!(resolve(&host, "founder.lab.internal"), Some(v4.clone()), "{kind}");
        assert_eq!(resolve(&host, "nobody.lab.internal"), None, "{kind}");
        assert_eq!(resolve(&host, "example.com"), Some(IpAddr::from(LIE).to_string()), "{kind}");
        node.stop();
        assert_ne!(resolve(&host, "founder.lab.internal"), Some(v4), "{kind}");
        assert!(!lan.heard("nobody.lab.internal"), "{kind}: {:?}", lan.heard);
    }
}

/// A mount namespace in which a resolvconf is installed, and knows the resolver of the LAN.
fn resolvconf_world(host: &Host, kind: &str, nameserver: IpAddr) -> Running {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns/resolvconf.sh");
    let mut command = host.command(script);
    command.arg(Path::new(UNPACKED).join(kind)).arg(nameserver.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{kind}");
    Running(child)
}
