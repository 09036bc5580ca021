//! The real binary in the hosts of a lab: each node has a state folder, a run folder and a configuration of its own.
//!
//! Daemons are ended by their own process id when a [`Node`] is dropped; what they logged is printed when the test failed.

#![allow(unsafe_code)]

use crate::lab::{Host, Lab, eventually};
use serde_json::Value;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// The name of every test's network; the labs keep them apart.
pub const NETWORK: &str = "lab";
/// The default port.
pub const PORT: u16 = 4647;
/// How long anything that should happen may take on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The same for `wait` and for transactions.
const PATIENCE_SECONDS: &str = "60";
/// What a daemon gets that a failed test asks how it stands.
const SHORT_PATIENCE_SECONDS: &str = "5";
/// What a transfer writes at a time, in bytes.
const PIECE_LEN: usize = 100_000;
/// Lines of a daemon's log that a failed test prints.
const SHOWN_LINES: usize = 60;

/// A node: its folders, and its daemon while one runs.
pub struct Node {
    name: String,
    host: Host,
    home: tempfile::TempDir,
    daemon: Option<Child>,
    /// How many daemons it had; each has a log of its own.
    runs: usize,
    environment: Vec<(String, String)>,
    /// Its daemons find no program of the administrator's.
    lacks_admin_programs: bool,
}

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub error: String,
}

impl Said {
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), error: text(&output.stderr) }
    }

    /// The documented `data` of a command that did what it should.
    pub fn data(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        self.any_data()
    }

    /// The same, of a command whose answer was bad news.
    pub fn any_data(&self) -> Value {
        let envelope: Value = serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(envelope["api"], 1, "{self:?}");
        envelope["data"].clone()
    }

    /// The documented message of a command that failed with this exit code.
    pub fn refusal(&self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        let envelope: Value = serde_json::from_str(&self.error).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        envelope["error"]["message"].as_str().unwrap().to_owned()
    }
}

impl Node {
    /// Gives a host its folders; nothing runs yet.
    pub fn new(host: &Host, name: &str) -> Self {
        let home = tempfile::Builder::new().prefix("p2pt-").tempdir().unwrap();
        for folder in ["state", "run"] {
            std::fs::create_dir(home.path().join(folder)).unwrap();
        }
        let node = Self {
            name: name.to_owned(),
            host: host.clone(),
            home,
            daemon: None,
            runs: 0,
            environment: Vec::new(),
            lacks_admin_programs: false,
        };
        node.configure("");
        node
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Takes note that its host is elsewhere.
    pub fn moved_to(&mut self, host: Host) {
        self.host = host;
    }

    /// Its endpoint over IPv4.
    pub fn endpoint(&self) -> SocketAddr {
        (self.host.v4(), PORT).into()
    }

    /// The folder of the network's state.
    pub fn state(&self) -> PathBuf {
        self.state_dir().join(NETWORK)
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.home.path().join("run")
    }

    /// Replaces the configuration.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.home.path().join("p2plus.toml"), text).unwrap();
    }

    /// Sets a variable of the environment of the daemons to come.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Keeps the programs of `/usr/sbin` from the daemons to come.
    pub fn hide_admin_programs(&mut self) {
        self.lacks_admin_programs = true;
    }

    /// A command line of this node, to be run where the test runs: the control socket is a file.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2plus"));
        self.complete(&mut command, args);
        command
    }

    fn complete(&self, command: &mut Command, args: &[&str]) {
        let home = self.home.path();
        command.arg("--state-dir").arg(home.join("state")).arg("--run-dir").arg(home.join("run"));
        command.arg("--config").arg(home.join("p2plus.toml")).args(args);
        command.stdin(Stdio::null());
    }

    /// What a person would type here, answered in JSON.
    pub fn say(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).arg("--json").output().unwrap())
    }

    /// The same, typed in the host's own namespace.
    pub fn say_inside(&self, args: &[&str]) -> Said {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_p2plus"));
        self.complete(&mut command, args);
        Said::of(&command.arg("--json").output().unwrap())
    }

    /// The same as [`say`](Self::say) without `--json`.
    pub fn say_plainly(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    /// Starts a command, answered in JSON, and waits for nothing.
    pub fn begin(&self, args: &[&str]) -> Child {
        self.command(args).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// What a person would type on the host itself, with its own `/etc`.
    pub fn inside(&self, args: &[&str]) -> Said {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_p2plus"));
        self.complete(&mut command, args);
        Said::of(&command.output().unwrap())
    }

    /// The data of a command that has to work.
    pub fn ask(&self, args: &[&str]) -> Value {
        self.say(args).data()
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the daemon with these arguments and waits until it is ready.
    pub fn start_with(&mut self, args: &[&str]) {
        self.launch(args);
        let is_ready = eventually(PATIENCE, || self.is_ready() || self.has_ended());
        assert!(is_ready && self.is_ready(), "the daemon of {} is not ready", self.name);
    }

    /// Starts the daemon and waits for nothing.
    pub fn launch(&mut self, args: &[&str]) {
        assert!(self.daemon.is_none(), "the daemon of {} runs already", self.name);
        self.runs += 1;
        let log = File::create(self.log_path()).unwrap();
        let mut command = if self.lacks_admin_programs {
            // In the mount namespace that `ip netns exec` makes for it.
            let mut shell = self.host.command("sh");
            shell.args(["-c", "mount -t tmpfs none /usr/sbin && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_p2plus")]);
            shell
        } else {
            self.host.command(env!("CARGO_BIN_EXE_p2plus"))
        };
        self.complete(&mut command, &[&["daemon"], args].concat());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Starts the daemon with a log that nobody reads, and waits until it answers.
    pub fn start_unread(&mut self) {
        assert!(self.daemon.is_none(), "the daemon of {} runs already", self.name);
        self.runs += 1;
        let mut command = self.host.command(env!("CARGO_BIN_EXE_p2plus"));
        self.complete(&mut command, &["daemon"]);
        let mut daemon = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        drop(daemon.stderr.take());
        self.daemon = Some(daemon);
        self.wait_for("online");
    }

    /// Runs a daemon that has to refuse, in the foreground, and returns what it came to.
    pub fn run_daemon(&self, args: &[&str]) -> Said {
        let mut command = self.host.command("timeout");
        command.args(["--signal=KILL", PATIENCE_SECONDS, env!("CARGO_BIN_EXE_p2plus")]);
        self.complete(&mut command, &[&["daemon"], args].concat());
        Said::of(&command.output().unwrap())
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    fn is_ready(&self) -> bool {
        self.log().lines().any(|line| line.contains(" ready "))
    }

    /// Says whether the daemon ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.daemon.as_mut().is_none_or(|daemon| daemon.try_wait().unwrap().is_some())
    }

    /// Forgets a daemon that ended by itself and returns its exit code.
    pub fn reap(&mut self) -> i32 {
        let status = self.daemon.take().expect("the daemon ran").wait().unwrap();
        status.code().unwrap_or(-1)
    }

    /// Stops the daemon as a service manager does; it has to end well.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.daemon.take().expect("the daemon runs").wait().unwrap();
        assert!(status.success(), "the daemon of {} ended with {status}", self.name);
    }

    /// Ends the daemon as a power cut does.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.pid()).unwrap();
        // SAFETY: kill touches no memory; the process is a child of ours that was not waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "{}", std::io::Error::last_os_error());
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join(format!("daemon-{}.log", self.runs))
    }

    /// What the latest daemon logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Founds the network on this node and starts it.
    pub fn found(&mut self) {
        self.ask(&["init", NETWORK, "--name", &self.name.clone(), "--no-start"]);
        self.start();
        self.wait_for("online");
    }

    /// Makes a ticket with this node's IPv4 endpoint.
    pub fn invite(&self, args: &[&str]) -> String {
        self.invite_by(self.endpoint(), args)
    }

    /// Makes a ticket with this endpoint.
    pub fn invite_by(&self, endpoint: SocketAddr, args: &[&str]) -> String {
        let endpoint = endpoint.to_string();
        let mut words = vec!["invite", "--endpoint", &endpoint, "--timeout", PATIENCE_SECONDS];
        words.extend(args);
        self.ask(&words)["ticket"].as_str().unwrap().to_owned()
    }

    /// Joins by a ticket, starts, and becomes a member.
    pub fn join(&mut self, ticket: &str) {
        self.ask(&["join", ticket, "--name", &self.name.clone(), "--no-start"]);
        self.start();
        self.wait_for("online");
    }

    /// Waits for a condition of `wait`.
    pub fn wait_for(&self, condition: &str) {
        self.ask(&["wait", "--for", condition, "--timeout", PATIENCE_SECONDS]);
    }

    /// Waits until this node and another have answered each other.
    pub fn meet(&self, other: &Self) {
        self.wait_for(&format!("peer={}", other.name));
        other.wait_for(&format!("peer={}", self.name));
    }

    /// Its overlay address of one family.
    fn overlay(&self, is_v4: bool) -> IpAddr {
        let data = self.ask(&["ip"]);
        let texts = data["addresses"].as_array().unwrap().iter();
        let mut addresses = texts.map(|text| text.as_str().unwrap().parse::<IpAddr>().unwrap());
        addresses.find(|address| address.is_ipv4() == is_v4).unwrap()
    }

    /// Its overlay IPv4 address.
    pub fn v4(&self) -> IpAddr {
        self.overlay(true)
    }

    /// Its overlay IPv6 address.
    pub fn v6(&self) -> IpAddr {
        self.overlay(false)
    }

    pub fn status(&self) -> Value {
        self.ask(&["status"])
    }

    /// How often the daemon dropped something for this reason.
    pub fn drops(&self, reason: &str) -> u64 {
        self.status()["drops"][reason].as_u64().unwrap_or(0)
    }

    /// What the daemon says of another node.
    pub fn peer(&self, other: &Self) -> Value {
        let peers = self.ask(&["peers"]);
        peers.as_array().unwrap().iter().find(|peer| peer["name"] == other.name).cloned().unwrap_or(Value::Null)
    }

    /// Binds a UDP socket of the host to an address and a free port.
    pub fn udp(&self, address: IpAddr) -> UdpSocket {
        let socket = self.host.run(|| UdpSocket::bind((address, 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() && self.daemon.is_some() {
            for question in ["status", "peers"] {
                let mut command = self.host.command("timeout");
                command.args([SHORT_PATIENCE_SECONDS, env!("CARGO_BIN_EXE_p2plus")]);
                self.complete(&mut command, &[question, "--json"]);
                let said = command.output().map(|output| Said::of(&output));
                eprintln!("--- {} of {}: {said:?}", question, self.name);
            }
        }
        if let Some(mut daemon) = self.daemon.take() {
            // One that ended already cannot be killed, and is waited for all the same.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the last lines of {}, run {}:", self.name, self.runs);
            lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A founder on one host and a member on another that finds it at an endpoint of the family named.
pub fn pair_on(hosts: [&Host; 2], underlay: fn(&Host) -> IpAddr) -> [Node; 2] {
    let [mut founder, mut ada] = [Node::new(hosts[0], "founder"), Node::new(hosts[1], "ada")];
    founder.found();
    ada.join(&founder.invite_by((underlay(hosts[0]), PORT).into(), &[]));
    founder.meet(&ada);
    [founder, ada]
}

/// A founder.
pub fn founder(lab: &mut Lab) -> Node {
    let mut founder = Node::new(&lab.host("founder"), "founder");
    founder.found();
    founder
}

/// Lets one more node join by a ticket of `inviter`.
pub fn joiner(lab: &mut Lab, inviter: &Node, name: &str) -> Node {
    let mut node = Node::new(&lab.host(name), name);
    node.join(&inviter.invite(&["--name", name]));
    node
}

/// A founder and a member that have met.
pub fn pair(lab: &mut Lab) -> [Node; 2] {
    let founder = founder(lab);
    let ada = joiner(lab, &founder, "ada");
    founder.meet(&ada);
    [founder, ada]
}

/// A founder and two members; everybody has met everybody.
pub fn trio(lab: &mut Lab) -> [Node; 3] {
    let [founder, ada] = pair(lab);
    let ben = joiner(lab, &founder, "ben");
    founder.meet(&ben);
    ada.meet(&ben);
    [founder, ada, ben]
}

/// Bytes that look random and are the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Sends `len` bytes by TCP from one node to an overlay address of another and compares what arrives.
pub fn transfer(from: &Node, to: &Node, address: IpAddr, len: usize) {
    transfer_paced(from, to, address, len, |_| {});
}

/// The same, calling `before` with the number of bytes written before each of the pieces in which they are written.
pub fn transfer_paced(from: &Node, to: &Node, address: IpAddr, len: usize, before: impl FnMut(usize)) {
    let listener = to.host.run(|| TcpListener::bind((address, 0))).unwrap();
    let target = listener.local_addr().unwrap();
    let stream = from.host.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    move_bytes(stream, &listener, len, before);
}

/// Sends `len` bytes over a connection that `listener` is to accept and compares what arrives.
pub fn move_bytes(mut stream: TcpStream, listener: &TcpListener, len: usize, mut before: impl FnMut(usize)) {
    let sent = noise(7, len);
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let (mut stream, _) = accept(listener);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut bytes = Vec::with_capacity(len);
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        });
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        for (number, piece) in sent.chunks(PIECE_LEN).enumerate() {
            before(number * PIECE_LEN);
            stream.write_all(piece).unwrap();
        }
        drop(stream);
        receiver.join().unwrap()
    });
    assert!(received == sent, "{} of {len} bytes arrived whole", received.len());
}

/// Accepts one connection, within our patience.
pub fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    let arrived = eventually(PATIENCE, || match listener.accept() {
        Ok(pair) => {
            accepted = Some(pair);
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            false
        }
    });
    assert!(arrived, "nobody connected to {listener:?}");
    let (stream, from) = accepted.expect("just accepted");
    stream.set_nonblocking(false).unwrap();
    (stream, from)
}

/// Sends a datagram from one node's address to another's and back; each arrives once.
pub fn exchange(one: &Node, other: &Node, addresses: [IpAddr; 2]) {
    let (here, there) = (one.udp(addresses[0]), other.udp(addresses[1]));
    for (from, to) in [(&here, &there), (&there, &here)] {
        let source = from.local_addr().unwrap();
        from.send_to(b"datagram", to.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 100];
        let (len, seen) = to.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], seen), (b"datagram".as_slice(), source));
    }
    // A second copy would have come before the answer did.
    there.set_nonblocking(true).unwrap();
    assert_eq!(there.recv(&mut [0; 100]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
}
