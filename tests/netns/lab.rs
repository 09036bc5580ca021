//! Small networks of network namespaces on the real kernel.
//!
//! ```text
//!   host a   198.18.1.2, 2001:db8:1::2 ──┐
//!   host b   198.18.2.2, 2001:db8:2::2 ──┤ router    .1 and ::1 on each link
//!   host c   …                           ┘
//! ```
//! Every lab has names of its own (`p2pt-PID-START-LAB-HOST`), so labs run in parallel. Dropping a lab ends the processes in its namespaces
//! and removes them; what a killed test process left is removed when the next one starts. Without root there is no lab: the
//! reason is printed, and with `P2PLUS_REQUIRE_ROOT=1` it is a failure.

#![allow(unsafe_code)]

use crate::small_disk;
use p2plus::io::StopSignal;
use p2plus::io::process::effective_user;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where iproute2 keeps the names of namespaces.
const NAMESPACES: &str = "/run/netns";
/// What all our namespaces' names begin with.
const PREFIX: &str = "p2pt";

static LABS: AtomicU32 = AtomicU32::new(0);
static CLEAN_UP: Once = Once::new();

/// Which families a host's link has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    Both,
    V4,
    V6,
}

/// A router and the hosts around it.
pub struct Lab {
    id: u32,
    router: Host,
    hosts: u8,
    namespaces: Vec<String>,
}

/// One namespace of a lab.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    /// Its position, from 1; the router's is 0.
    index: u8,
    /// Where it is, from 0: each place has subnets of its own.
    site: u8,
    /// The process whose mounts it sees, where it is not everybody's.
    mounts_of: Option<u32>,
    /// The position of the host that it is behind, on a LAN of that one's; else it is at the router.
    gate: Option<u8>,
}

/// A process in a namespace, ended when dropped.
pub struct Running(pub Child);

impl Lab {
    /// Builds a lab with its router alone; `None`, with the reason printed, where this process may not.
    pub fn new() -> Option<Self> {
        if effective_user() != 0 {
            skip("network namespaces take root");
            return None;
        }
        CLEAN_UP.call_once(remove_stale);
        let id = LABS.fetch_add(1, Ordering::Relaxed);
        let router = Host { namespace: namespace(id, "router"), index: 0, site: 0, mounts_of: None, gate: None };
        if let Err(reason) = add_namespace(&router.namespace) {
            skip(&reason);
            return None;
        }
        let namespaces = vec![router.namespace.clone()];
        let lab = Self { id, router, hosts: 0, namespaces };
        lab.router.skip_duplicate_detection();
        lab.router.ip("link set lo up");
        lab.router.sysctl("net/ipv4/ip_forward", "1");
        lab.router.sysctl("net/ipv6/conf/all/forwarding", "1");
        Some(lab)
    }

    /// Adds a host with both families.
    pub fn host(&mut self, name: &str) -> Host {
        self.host_with(name, Underlay::Both)
    }

    /// Adds a host, linked to the router at MTU 1500.
    pub fn host_with(&mut self, name: &str, underlay: Underlay) -> Host {
        let host = self.unplugged(name, None);
        let (router, link) = (&self.router, host.router_link());
        run(
            "ip",
            &format!("-n {} link add eth0 type veth peer name {link} netns {}", host.namespace, router.namespace),
        );
        if underlay == Underlay::V4 {
            host.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        }
        host.ip("link set lo up");
        host.ip("link set eth0 up");
        router.ip(&format!("link set {link} up"));
        self.attach(&host, underlay);
        host
    }

    /// Adds a host on the LAN behind another one, `192.168.GATE.0/24` on a bridge `lan0` there, which passes its packets on.
    pub fn host_behind(&mut self, gate: &Host, name: &str) -> Host {
        let host = self.unplugged(name, Some(gate.index));
        let (lan, port) = (gateway_of_lan(gate.index), format!("lan{}", host.index));
        if !gate.ip("link").contains(" lan0: ") {
            gate.ip("link add lan0 type bridge");
            gate.ip(&format!("addr add {lan}/24 dev lan0"));
            gate.ip("link set lan0 up");
            gate.sysctl("net/ipv4/ip_forward", "1");
        }
        gate.ip(&format!("link add {port} master lan0 type veth peer name eth0 netns {}", host.namespace));
        gate.ip(&format!("link set {port} up"));
        host.ip("link set lo up");
        host.ip("link set eth0 up");
        host.ip(&format!("addr add {}/24 dev eth0", host.v4()));
        host.ip(&format!("route add default via {lan}"));
        host
    }

    /// Gives the LAN of a gate, and a host there, addresses of IPv6 that the router knows the way to.
    pub fn give_ipv6(&self, gate: &Host, host: &Host) {
        let lan = self.ipv6_behind(gate);
        gate.ip(&format!("addr add {lan}/64 dev lan0 nodad"));
        gate.sysctl("net/ipv6/conf/all/forwarding", "1");
        host.ip(&format!("addr add {}/64 dev eth0 nodad", self.ipv6_behind(host)));
        host.ip(&format!("-6 route replace default via {lan}"));
        self.route_ipv6(gate);
    }

    /// Tells the router, who forgets it with the link there, the way to the LAN of a gate.
    pub fn route_ipv6(&self, gate: &Host) {
        let IpAddr::V6(lan) = self.ipv6_behind(gate) else { unreachable!("IPv6") };
        let subnet = Ipv6Addr::from_bits(lan.to_bits() >> 64 << 64);
        self.router.ip(&format!("-6 route replace {subnet}/64 via {}", gate.v6()));
    }

    /// The IPv6 address of a host on the LAN behind a gate, or of the gate there.
    pub fn ipv6_behind(&self, host: &Host) -> IpAddr {
        let (gate, last) = host.gate.map_or((host.index, 0xffff), |gate| (gate, u16::from(host.index)));
        IpAddr::from([0x2001, 0xdb8, gate.into(), 0x100, 0, 0, 0, last])
    }

    /// Makes a host without a link.
    fn unplugged(&mut self, name: &str, gate: Option<u8>) -> Host {
        self.hosts += 1;
        let host = Host { namespace: namespace(self.id, name), index: self.hosts, site: 0, mounts_of: None, gate };
        add_namespace(&host.namespace).unwrap();
        self.namespaces.push(host.namespace.clone());
        host.skip_duplicate_detection();
        host
    }

    /// Gives a host and the router's end of its link their addresses.
    fn attach(&self, host: &Host, underlay: Underlay) {
        let link = host.router_link();
        if underlay != Underlay::V6 {
            let gateway = gateway(host.v4());
            self.router.ip(&format!("addr add {gateway}/24 dev {link}"));
            host.ip(&format!("addr add {}/24 dev eth0", host.v4()));
            host.ip(&format!("route replace default via {gateway}"));
        }
        if underlay != Underlay::V4 {
            let gateway = gateway(host.v6());
            self.router.ip(&format!("addr add {gateway}/64 dev {link} nodad"));
            host.ip(&format!("addr add {}/64 dev eth0 nodad", host.v6()));
            host.ip(&format!("-6 route replace default via {gateway}"));
        }
    }

    /// Takes all addresses of a host away and gives it those of another subnet; the old ones are nobody's then. Returns the host
    /// that it is now.
    pub fn relocate(&self, host: &Host, underlay: Underlay) -> Host {
        let moved = Host { site: host.site + 1, mounts_of: None, ..host.clone() };
        for (place, link) in [(host, "eth0"), (&self.router, &*host.router_link())] {
            place.ip(&format!("-4 addr flush dev {link}"));
            place.ip(&format!("-6 addr flush dev {link} scope global"));
        }
        self.attach(&moved, underlay);
        moved
    }

    /// The namespace in the middle: what crosses it is what an observer sees.
    pub fn router(&self) -> &Host {
        &self.router
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            remove_namespace(namespace);
        }
    }
}

impl Host {
    /// The namespace's name, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The host's IPv4 address; an IPv6-only host does not have it.
    pub fn v4(&self) -> IpAddr {
        match self.gate {
            None => IpAddr::from([198, 18, self.index + 100 * self.site, 2]),
            Some(gate) => IpAddr::from([192, 168, gate, self.index]),
        }
    }

    /// The host's IPv6 address; an IPv4-only host does not have it.
    pub fn v6(&self) -> IpAddr {
        IpAddr::from([0x2001, 0xdb8, self.index.into(), self.site.into(), 0, 0, 0, 2])
    }

    /// The name of the router's end of this host's link.
    pub fn router_link(&self) -> String {
        format!("to{}", self.index)
    }

    /// Runs `ip -n NAMESPACE` with these words; a refusal is a failure.
    pub fn ip(&self, words: &str) -> String {
        run("ip", &format!("-n {} {words}", self.namespace))
    }

    /// Sets a value below `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.run(|| std::fs::write(Path::new("/proc/sys").join(path), value)).unwrap();
    }

    /// Adds nftables rules to this namespace.
    pub fn rules(&self, text: &str) {
        let mut nft = self.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refused {text}");
    }

    /// Makes link-local addresses usable at once: else the first IPv6 packet waits two seconds for its neighbour's.
    fn skip_duplicate_detection(&self) {
        for interfaces in ["all", "default"] {
            self.sysctl(&format!("net/ipv6/conf/{interfaces}/accept_dad"), "0");
        }
    }

    /// The same host as a process there sees it that has mounts of its own.
    pub fn beside(&self, pid: u32) -> Self {
        Self { mounts_of: Some(pid), ..self.clone() }
    }

    /// Prepares a command that runs in this namespace.
    pub fn command(&self, program: &str) -> Command {
        if let Some(pid) = self.mounts_of {
            let mut command = Command::new("nsenter");
            command.args(["--target", &pid.to_string(), "--mount", "--net", "--", program]);
            return command;
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Starts a command in this namespace.
    pub fn spawn(&self, command: &mut Command) -> Running {
        Running(command.spawn().unwrap())
    }

    /// Runs `body` on a thread in this namespace. Sockets and threads that it makes stay there.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new(NAMESPACES).join(&self.namespace)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: the descriptor is open; only this thread, which ends with the closure, changes its namespace.
                let outcome = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
                body()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that ended already cannot be killed, and is waited for all the same.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `condition` holds; false when it does not within `timeout`.
pub fn eventually(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// A stop signal that is triggered after `timeout`, so that a test that waits in vain fails instead of hanging.
pub fn stop_after(timeout: Duration) -> StopSignal {
    let stop = StopSignal::new().unwrap();
    let late = stop.clone();
    thread::spawn(move || {
        thread::sleep(timeout);
        late.trigger();
    });
    stop
}

/// The namespaces that exist and belong to this process.
pub fn own_namespaces() -> Vec<String> {
    let own = own_prefix();
    namespaces().into_iter().filter(|name| name.starts_with(&own)).collect()
}

/// The address of a gate in its LAN; no host has it, because the gate itself is one of the lab's hosts and has a lower number.
fn gateway_of_lan(gate: u8) -> IpAddr {
    IpAddr::from([192, 168, gate, 1])
}

/// The router's address in a host's subnet.
fn gateway(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() - 1).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() - 1).into(),
    }
}

/// What the names of all that this process makes on the system begin with.
pub fn own_prefix() -> String {
    format!("{PREFIX}-{}-", owner(std::process::id()).unwrap())
}

/// Says whether a name begins with the prefix of a test process that is dead.
pub fn prefix_is_stale(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let mut words = rest.splitn(3, '-');
    let (Some(pid), Some(start)) = (words.next(), words.next()) else { return false };
    pid.parse().is_ok_and(|pid| owner(pid) != Some(format!("{pid}-{start}")))
}

fn skip(reason: &str) {
    assert!(std::env::var_os("P2PLUS_REQUIRE_ROOT").is_none_or(|value| value != "1"), "cannot run: {reason}");
    // The handle itself, not `eprintln!`: a passing test's captured output is shown to nobody.
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped {test}: {reason}");
}

fn namespace(lab: u32, host: &str) -> String {
    format!("{}{lab}-{host}", own_prefix())
}

/// A process for all time: its id and its start, in ticks since boot; `None` when there is none.
fn owner(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the start time is the 20th field behind it (proc(5)).
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{pid}-{start}"))
}

fn namespaces() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Removes what test processes left that are dead.
fn remove_stale() {
    namespaces().iter().filter(|name| prefix_is_stale(name)).for_each(|name| remove_namespace(name));
    small_disk::remove_stale();
}

fn add_namespace(name: &str) -> Result<(), String> {
    let mut reason = String::new();
    // Two at once, and iproute2's first use on a machine, trip over each other in making /run/netns a shared mount.
    for _ in 0..5 {
        let output = match Command::new("ip").args(["netns", "add", name]).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => output,
            Err(error) => return Err(format!("ip (iproute2) cannot be run: {error}")),
        };
        reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let _ = Command::new("ip").args(["netns", "del", name]).output();
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("no network namespace is to be had here: {reason}"))
}

/// Ends the processes in a namespace and removes it. Another process may be removing it at the same time.
fn remove_namespace(name: &str) {
    let pids = Command::new("ip").args(["netns", "pids", name]).output();
    let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse::<libc::pid_t>().ok()) {
        if pid.unsigned_abs() != std::process::id() {
            // SAFETY: kill touches no memory; the process is in a namespace that only this lab used.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}

/// Runs a command whose words hold no blanks and returns what it printed; a refusal is a failure.
fn run(program: &str, words: &str) -> String {
    let Output { status, stdout, stderr } = Command::new(program).args(words.split_whitespace()).output().unwrap();
    assert!(status.success(), "{program} {words}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}
