//! A node behind a home router has its port mapped there, by a real miniupnpd, and strangers reach it unasked; a gateway that lies gains nothing.
//!
//! ```text
//!   founder 192.168.GATE.N ── lan0  gate  eth0 8.0.7.2 ── 8.0.7.1 router ── stranger
//! ```
//! miniupnpd maps nothing on an address that is reserved for tests, so the gate has one of the internet too, which exists in the lab alone.

use crate::lab::{Host, Lab, Running, eventually};
use crate::node::{NETWORK, Node, PATIENCE, PORT};
use p2plus::wire::port_mapping::GATEWAY_PORT;
use p2plus::wire::ticket::Ticket;
use p2plus::wire::upnp::SEARCH_PORT;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Where `scripts/lib/packages.sh` unpacks it.
const MINIUPNPD: &str = "/var/cache/p2plus-unpacked/miniupnpd-nftables/usr/sbin/miniupnpd";

/// The gate's address on the lab's internet.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(8, 0, 7, 2);

/// What the gate does beside miniupnpd: it hides its LAN behind other ports and passes nothing on that comes unasked.
const RULES: &str = "table inet filter {
    chain passed { type filter hook forward priority filter; policy drop;
        ct state established,related accept; iifname lan0 accept; jump miniupnpd; };
    chain own { type filter hook input priority filter; iifname eth0 ct state new drop; };
    chain in { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; };
    chain out { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; oifname eth0 masquerade random,fully-random; };
    chain miniupnpd { }; chain prerouting_miniupnpd { }; chain postrouting_miniupnpd { }; }";

/// A home with a gate, and a host behind it.
struct Home {
    gate: Host,
    host: Host,
    folder: tempfile::TempDir,
}

impl Home {
    fn new(lab: &mut Lab) -> Self {
        let gate = lab.host("gate");
        gate.ip(&format!("addr add {OUTSIDE}/24 dev eth0"));
        lab.router().ip(&format!("addr add 8.0.7.1/24 dev {}", gate.router_link()));
        gate.rules(RULES);
        let host = lab.host_behind(&gate, "home");
        Self { gate, host, folder: tempfile::Builder::new().prefix("p2pt-").tempdir().unwrap() }
    }

    /// The gate's address in its LAN.
    fn lan(&self) -> Ipv4Addr {
        let IpAddr::V4(host) = self.host.v4() else { unreachable!("a LAN of the lab is IPv4") };
        let [a, b, c, _] = host.octets();
        Ipv4Addr::new(a, b, c, 1)
    }

    /// The gate's end of the host's cable.
    fn port(&self) -> String {
        let IpAddr::V4(host) = self.host.v4() else { unreachable!("a LAN of the lab is IPv4") };
        format!("lan{}", host.octets()[3])
    }

    /// Starts miniupnpd at the gate, with PCP and NAT-PMP or with UPnP alone.
    fn miniupnpd(&self, has_pcp: bool) -> Running {
        assert!(Path::new(MINIUPNPD).exists(), "no miniupnpd: scripts/lib/packages.sh test");
        let path = |name| self.folder.path().join(name).display().to_string();
        let text = format!(
            "ext_ifname=eth0\next_ip={OUTSIDE}\nlistening_ip=lan0\nipv6_disable=yes\nenable_natpmp={}\nenable_upnp={}\n\
             secure_mode=yes\nlease_file={}\nupnp_table_name=filter\nupnp_nat_table_name=filter\n\
             upnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\n\
             upnp_nat_postrouting_chain=postrouting_miniupnpd\n\
             uuid=00000000-0000-0000-0000-000000000001\nallow 1024-65535 0.0.0.0/0 1024-65535\n",
            if has_pcp { "yes" } else { "no" },
            if has_pcp { "no" } else { "yes" },
            path("leases"),
        );
        std::fs::write(path("miniupnpd.conf"), text).unwrap();
        let mut command: Command = self.gate.command(MINIUPNPD);
        command.args(["-d", "-f", &path("miniupnpd.conf"), "-P", &path("pid")]);
        self.gate.spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Where the gate sends what comes from outside.
    fn mapped(&self) -> bool {
        let mut command = self.gate.command("nft");
        let output = command.args(["list", "chain", "inet", "filter", "prerouting_miniupnpd"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.contains("dnat") && text.contains(&self.host.v4().to_string())
    }
}

/// Where a node says that it is, as its tickets name it.
fn endpoints(node: &Node) -> Vec<SocketAddr> {
    let text = node.ask(&["invite", "--timeout", "60"])["ticket"].as_str().unwrap().to_owned();
    Ticket::decode(&text).unwrap().peers.remove(0).endpoints
}

#[test]
fn a_gateway_maps_the_port_by_pcp_or_upnp_and_a_stranger_joins_there() {
    for (has_pcp, protocol) in [(true, "PCP"), (false, "UPnP")] {
        let Some(mut lab) = Lab::new() else { return };
        let stranger = lab.host("stranger");
        let home = Home::new(&mut lab);
        let _miniupnpd = home.miniupnpd(has_pcp);
        let mut founder = Node::new(&home.host, "founder");
        founder.found();
        assert!(eventually(PATIENCE, || home.mapped()), "{protocol}");
        let outside = SocketAddr::from((OUTSIDE, PORT));
        assert!(eventually(PATIENCE, || endpoints(&founder).contains(&outside)), "{:?}", endpoints(&founder));
        assert!(founder.log().contains(&format!("by={protocol}")));

        let mut ada = Node::new(&stranger, "ada");
        ada.join(&founder.invite_by(outside, &["--name", "ada"]));
        founder.meet(&ada);
        founder.stop();
        assert!(eventually(PATIENCE, || !home.mapped()), "{protocol}: the mapping outlives the daemon");
    }
}

#[test]
fn without_port_mapping_the_gateway_is_asked_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    let home = Home::new(&mut lab);
    let asked = Liar::start(&home, Ipv4Addr::LOCALHOST);
    let mut founder = Node::new(&home.host, "founder");
    founder.configure("[underlay]\nport_mapping = false\n");
    founder.found();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(asked.requests.load(Ordering::Relaxed), 0);
    // The same daemon asks once it may.
    founder.configure("");
    founder.ask(&["reload"]);
    assert!(eventually(PATIENCE, || asked.requests.load(Ordering::Relaxed) > 0));
}

/// A gateway that answers everything, and never the truth.
struct Liar {
    /// How it answers PCP: with an address, or with rubbish.
    address: Ipv4Addr,
    requests: Arc<AtomicUsize>,
    /// How many requests asked for an end.
    deletions: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Liar {
    fn start(home: &Home, address: Ipv4Addr) -> Self {
        let mut liar = Self {
            address,
            requests: Arc::default(),
            deletions: Arc::default(),
            is_over: Arc::default(),
            threads: Vec::new(),
        };
        for port in [GATEWAY_PORT, SEARCH_PORT] {
            let socket = home.gate.run(|| UdpSocket::bind((home.lan(), port))).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let (address, requests) = (liar.address, Arc::clone(&liar.requests));
            let (deletions, is_over) = (Arc::clone(&liar.deletions), Arc::clone(&liar.is_over));
            liar.threads.push(thread::spawn(move || {
                let mut request = [0; 2000];
                while !is_over.load(Ordering::Relaxed) {
                    let Ok((len, from)) = socket.recv_from(&mut request) else { continue };
                    requests.fetch_add(1, Ordering::Relaxed);
                    deletions.fetch_add(usize::from(is_deletion(&request[..len])), Ordering::Relaxed);
                    for answer in lies(&request[..len], address) {
                        let _ = socket.send_to(&answer, from);
                    }
                }
            }));
        }
        liar
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn is_deletion(request: &[u8]) -> bool {
    request.first() == Some(&2) && request.get(4..8) == Some(&[0; 4])
}

/// What a lying gateway answers: rubbish first, then what looks like an answer.
fn lies(request: &[u8], address: Ipv4Addr) -> Vec<Vec<u8>> {
    static ROUND: AtomicU8 = AtomicU8::new(0);
    let rubbish = vec![ROUND.fetch_add(1, Ordering::Relaxed); 60];
    let answer = match request {
        [2, 1, ..] if request.len() == 60 => {
            let mut answer = request.to_vec();
            answer[1] = 0x81;
            answer[44..60].copy_from_slice(&address.to_ipv6_mapped().octets());
            answer
        }
        [0, 0] => [&[0, 128, 0, 0, 0, 0, 0, 9], address.octets().as_slice()].concat(),
        [0, 1, ..] if request.len() == 12 => {
            [&[0, 129, 0, 0, 0, 0, 0, 9], &request[4..6], &[0x12, 0x27, 0, 0, 0, 60]].concat()
        }
        _ => b"HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\
               LOCATION: http://127.0.0.1:5000/rootDesc.xml\r\n\r\n"
            .to_vec(),
    };
    vec![Vec::new(), rubbish, answer]
}

#[test]
fn a_gateway_that_lies_changes_nothing_and_calls_nobody_up() {
    let in_overlay = Ipv4Addr::new(10, 77, 0, 9);
    for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(100, 64, 0, 7), Ipv4Addr::BROADCAST, in_overlay] {
        let Some(mut lab) = Lab::new() else { return };
        let home = Home::new(&mut lab);
        let victim = home.host.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 5000))).unwrap();
        victim.set_nonblocking(true).unwrap();
        let liar = Liar::start(&home, address);
        let mut founder = Node::new(&home.host, "founder");
        founder.configure("[node]\nlog_level = \"debug\"\n");
        founder.ask(&["init", NETWORK, "--name", "founder", "--ipv4", "10.77.0.0/20", "--no-start"]);
        founder.start();
        founder.wait_for("online");
        let is_over = || founder.log().contains(&format!("Unmapped(Useless({address}))"));
        assert!(eventually(PATIENCE, is_over), "{address}");
        assert_eq!(endpoints(&founder), [SocketAddr::from((home.host.v4(), PORT))], "{address}");
        assert!(liar.deletions.load(Ordering::Relaxed) > 0, "{address}: what is of no use is given back");
        assert!(victim.accept().is_err(), "{address}: the daemon called upon somebody whom the gateway named");
    }
}

#[test]
fn a_mapping_goes_and_comes_back_with_the_way_to_the_gateway() {
    let Some(mut lab) = Lab::new() else { return };
    let home = Home::new(&mut lab);
    let liar = Liar::start(&home, OUTSIDE);
    let mut founder = Node::new(&home.host, "founder");
    founder.configure("[node]\nlog_level = \"debug\"\n");
    founder.found();
    let outside = SocketAddr::from((OUTSIDE, PORT));
    assert!(eventually(PATIENCE, || endpoints(&founder).contains(&outside)));
    home.host.ip("route del default");
    assert!(eventually(PATIENCE, || !endpoints(&founder).contains(&outside)));
    home.host.ip(&format!("route add default via {}", home.lan()));
    assert!(eventually(PATIENCE, || endpoints(&founder).contains(&outside)));

    // A cable pulled and put in again: whoever is there now is asked, although the address is the same.
    let (lost_before, before) = (lost(&founder), liar.requests.load(Ordering::Relaxed));
    home.gate.ip(&format!("link set {} down", home.port()));
    assert!(eventually(PATIENCE, || lost(&founder) > lost_before));
    home.gate.ip(&format!("link set {} up", home.port()));
    assert!(eventually(PATIENCE, || liar.requests.load(Ordering::Relaxed) > before));
    assert!(eventually(PATIENCE, || endpoints(&founder).contains(&outside)));
}

/// How often a node found no gateway so far.
fn lost(node: &Node) -> usize {
    node.log().matches("NoGateway").count()
}
