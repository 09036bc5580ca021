//! The binary against the real server: who may do what, what waiting does, and what the socket withstands.

use crate::scripted::Scripted;
use crate::{Ended, Host, ended, samples, skip};
use p2plus::daemon::api::relays::{RelayOn, RelayRequest};
use p2plus::daemon::api::request::{Condition, Reply, Request};
use p2plus::daemon::api::route::Right;
use p2plus::daemon::api::types::{BadBlock, Event};
use p2plus::daemon::config::Config;
use p2plus::daemon::failure::{ErrorCode, Failure};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The user `nobody`.
const STRANGER: u32 = 65_534;

/// The variable that tells this program to play a stranger, and which.
const CONDUCT: &str = "P2PLUS_STRANGER";

fn lab() -> Host {
    Host::with_networks(&["lab"])
}

/// Sends raw bytes to the socket and returns all that comes back.
fn raw(host: &Host, request: &str) -> String {
    let mut stream = UnixStream::connect(host.run_dir().join("lab.sock")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_was_typed_reaches_the_node_as_it_was_meant() {
    let host = lab();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let _daemon = Scripted::start(&host, move |request| {
        log.lock().unwrap().push(request.clone());
        Ok(samples::reply(request).into())
    });
    let args = "invite --name b --tag web --tag prod --expires 7d --endpoint 10.77.1.2:4647 --timeout 2.5";
    assert_eq!(host.run(&args.split(' ').collect::<Vec<_>>()).code, 0);
    assert_eq!(host.run(&["revoke", "b", "--reason", "it's lost", "--no-wait"]).code, 0);
    let seen = seen.lock().unwrap();
    let [Request::Invite(invite), Request::Revoke(revoke)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(invite.name.as_deref(), Some("b"));
    assert_eq!(invite.tags, ["web", "prod"]);
    assert_eq!(invite.uses, 1);
    assert_eq!(invite.expires.0, Duration::from_hours(168));
    assert_eq!(invite.endpoints, ["10.77.1.2:4647".parse().unwrap()]);
    assert_eq!((invite.finality.wait, invite.finality.timeout()), (true, Duration::from_millis(2500)));
    assert_eq!((revoke.reason.as_deref(), revoke.finality.wait), (Some("it's lost"), false));
}

#[test]
fn a_relay_is_ordered_as_it_was_typed() {
    let host = lab();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let _daemon = Scripted::start(&host, move |request| {
        log.lock().unwrap().push(request.clone());
        Ok(samples::reply(request).into())
    });
    let args = "relay on --endpoint 203.0.113.7:4647 --endpoint [2001:db8::7]:4647 --tls-port 443 --class 3 --for b";
    for args in [args, "relay on", "relay off --no-wait", "ledger endpoints 203.0.113.7:4647 --peer b"] {
        assert_eq!(host.run(&args.split(' ').collect::<Vec<_>>()).code, 0, "{args}");
    }
    let seen = seen.lock().unwrap();
    let orders: Vec<_> = seen
        .iter()
        .map(|request| if let Request::Relay(order) = request { order } else { panic!("{request:?}") })
        .collect();
    let [RelayRequest::On(on), RelayRequest::On(plain), RelayRequest::Off(off), RelayRequest::SetEndpoints(set)] =
        orders[..]
    else {
        panic!("{orders:?}")
    };
    let endpoints = ["203.0.113.7:4647", "[2001:db8::7]:4647"].map(|text| text.parse().unwrap());
    assert_eq!((&on.endpoints[..], on.tls_port, on.class), (&endpoints[..], Some(443), Some(3)));
    assert_eq!(on.member.as_deref(), Some("b"));
    assert_eq!(*plain, RelayOn::default());
    assert_eq!((off.member.as_deref(), off.finality.wait), (None, false));
    assert_eq!((&set.endpoints[..], set.member.as_deref()), (&endpoints[..1], Some("b")));
}

#[test]
fn a_ticket_is_alone_on_standard_output() {
    let host = lab();
    let _daemon = Scripted::start(&host, |request| Ok(samples::reply(request).into()));
    let ended = host.run(&["invite", "--qr"]);
    assert_eq!(ended.stdout, samples::ticket() + "\n");
    assert!(ended.stderr.contains("is final at height 13") && ended.stderr.contains("█"), "{}", ended.stderr);
    assert_eq!(host.run(&["invite", "--json", "--qr"]).stderr, "");
}

#[test]
fn each_failure_has_its_exit_code_and_hint() {
    let host = lab();
    let next = Arc::new(Mutex::new(ErrorCode::Failed));
    let script = Arc::clone(&next);
    let _daemon =
        Scripted::start(&host, move |_| Err(Failure::new(*script.lock().unwrap(), "no b\u{7}").hint("try c")));
    for code in ErrorCode::ALL {
        *next.lock().unwrap() = code;
        let text = host.run(&["whois", "b"]);
        assert_eq!(text.code, i32::from(code.exit_code()), "{code:?}");
        assert_eq!(text.stderr, "error: no b \nhint:  try c\n");
        let json = host.run(&["whois", "b", "--json"]);
        assert_eq!((json.code, json.stdout.as_str()), (i32::from(code.exit_code()), ""), "{code:?}");
        let value: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
        assert_eq!(value["error"]["code"], serde_json::to_value(code).unwrap());
    }
}

#[test]
fn a_broken_ledger_is_exit_10_with_the_height() {
    let host = lab();
    let bad = BadBlock { height: 5, reason: "the certificate has a false signature".to_owned() };
    let _daemon = Scripted::start(&host, move |_| Ok(Reply::LedgerVerify(samples::verified(Some(bad.clone()))).into()));
    let text = host.run(&["ledger", "verify"]);
    assert_eq!(text.code, 10);
    assert!(text.stdout.contains("broken at height 5: the certificate has a false signature"), "{text:?}");
    let json = host.run(&["ledger", "verify", "--json"]);
    assert_eq!(json.code, 10);
    let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(value["data"]["bad"]["height"], 5);
}

#[test]
fn an_unreachable_peer_is_exit_7_after_all_probes() {
    let host = lab();
    let _daemon = Scripted::start(&host, |_| Err(Failure::new(ErrorCode::Unreachable, "b does not answer")));
    let ended = host.run(&["ping", "b", "-c", "2"]);
    assert_eq!(ended.code, 7);
    assert_eq!(ended.stdout, "b 1: no answer\nb 2: no answer\n2 sent, 0 answered\n");
}

#[test]
fn wait_outlasts_a_daemon_and_a_name_that_are_not_there_yet() {
    let host = Host::new();
    let child = host.command(&["wait", "--for", "peer=b", "--timeout", "20"]);
    let waiting = std::thread::spawn(move || {
        let mut child = child;
        child.output().unwrap()
    });
    std::thread::sleep(Duration::from_millis(300));
    std::fs::create_dir_all(host.state_dir().join("lab")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut attempts = 0;
    let _daemon = Scripted::start(&host, move |request| {
        attempts += 1;
        match (attempts, request) {
            (1, _) => Err(Failure::new(ErrorCode::NotFound, "nobody is called b")),
            (2, _) => Err(Failure::new(ErrorCode::Pending, "waiting for validators")),
            (_, Request::Wait(wait)) if wait.condition == Condition::Peer("b".into()) => {
                Ok(samples::reply(request).into())
            }
            _ => Err(Failure::new(ErrorCode::Failed, "asked for something else")),
        }
    });
    let ended = ended(&waiting.join().unwrap());
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "peer=b\n"), "{ended:?}");
}

#[test]
fn wait_gives_up_at_once_when_time_mends_nothing() {
    for (code, exit) in
        [(ErrorCode::Refused, 6), (ErrorCode::Revoked, 6), (ErrorCode::NotAuthorized, 6), (ErrorCode::Permission, 4)]
    {
        let host = lab();
        let _daemon = Scripted::start(&host, move |_| Err(Failure::new(code, "the ticket was used")));
        let start = Instant::now();
        assert_eq!(host.run(&["wait", "--for", "online"]).code, exit, "{code:?}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    for code in [ErrorCode::NotFound, ErrorCode::Pending, ErrorCode::NotRunning] {
        let host = lab();
        let _daemon = Scripted::start(&host, move |_| Err(Failure::new(code, "not yet")));
        assert_eq!(host.run(&["wait", "--for", "peer=b", "--timeout", "0.4"]).code, 7, "{code:?}");
    }
}

/// Runs the binary as another user, from a folder that this user can reach.
fn run_as(host: &Host, uid: u32, args: &[&str]) -> Ended {
    let binary = host.path().join("p2plus");
    if !binary.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_p2plus"), &binary).unwrap();
        std::fs::set_permissions(host.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(binary);
    command.env("P2PLUS_STATE_DIR", host.state_dir()).env("P2PLUS_RUN_DIR", host.run_dir()).current_dir("/");
    ended(&command.args(args).uid(uid).gid(uid).output().unwrap())
}

fn is_root(host: &Host) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_root = std::fs::metadata(host.path()).unwrap().uid() == 0;
    if !is_root {
        skip("only root can become other users");
    }
    is_root
}

#[test]
fn a_stranger_sees_that_the_network_is_up_and_nothing_more() {
    let host = lab();
    if !is_root(&host) {
        return;
    }
    let _daemon = Scripted::start(&host, |request| Ok(samples::reply(request).into()));
    let status = run_as(&host, STRANGER, &["status", "--json"]);
    assert_eq!(status.code, 0, "{status:?}");
    let value: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(value["data"]["network"]["state"], "up");
    assert_eq!(value["warnings"].as_array().unwrap().len(), 1);
    for secret in ["a1b2c3", "b0b1b2", "10.77", "fd5a", "4647", "000102", "gone-for-good", "replayed"] {
        assert!(!status.stdout.contains(secret), "{secret} in {}", status.stdout);
    }
    let id = "7".repeat(64);
    let others: [&[&str]; 32] = [
        &["peers"],
        &["ping", "b", "-c", "1"],
        &["ip"],
        &["whois", "b"],
        &["wait", "--for", "online"],
        &["members"],
        &["authorize", &id],
        &["revoke", "b"],
        &["rename", "b", "c"],
        &["invite"],
        &["invites"],
        &["invites", "revoke", "c0"],
        &["ledger", "status"],
        &["ledger", "log"],
        &["ledger", "show", "1"],
        &["ledger", "verify"],
        &["tag", "b", "+c"],
        &["allow", "b", "c"],
        &["policy", "show"],
        &["policy", "rm", "1"],
        &["explain", "b", "c:22"],
        &["routes"],
        &["requests"],
        &["approve", "01"],
        &["advertise", "--exit"],
        &["accept", "all"],
        &["exit-node", "off"],
        &["ledger", "upgrade"],
        &["ledger", "endpoints"],
        &["relay", "on"],
        &["relay", "off"],
        &["reload"],
    ];
    for args in others {
        let ended = run_as(&host, STRANGER, args);
        assert_eq!((ended.code, ended.stdout.as_str()), (4, ""), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("hint:"), "{args:?}: {ended:?}");
    }
}

#[test]
fn an_admin_of_the_configuration_may_do_what_root_may() {
    let host = lab();
    if !is_root(&host) {
        return;
    }
    let config = Config::parse(std::path::Path::new("lab.toml"), "[node]\nadmins = [\"65533\"]\n").unwrap();
    let _daemon = Scripted::start_with(&host, &config, |request| Ok(samples::reply(request).into()));
    assert_eq!(run_as(&host, 65_533, &["revoke", "b"]).code, 0);
    assert_eq!(run_as(&host, STRANGER, &["revoke", "b"]).code, 4);
}

/// Starts this very program as a stranger that behaves as it is told.
fn stranger(host: &Host, conduct: &str) -> Child {
    std::fs::set_permissions(host.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // By this name anybody reaches it, wherever it is.
    Command::new("/proc/self/exe")
        .args(["served::stranger_of_the_next_tests", "--exact", "--nocapture"])
        .env(CONDUCT, conduct)
        .env("P2PLUS_RUN_DIR", host.run_dir())
        .uid(STRANGER)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Plays the stranger; does nothing unless told so.
#[test]
fn stranger_of_the_next_tests() {
    let Ok(conduct) = std::env::var(CONDUCT) else { return };
    let socket = PathBuf::from(std::env::var_os("P2PLUS_RUN_DIR").unwrap()).join("lab.sock");
    let connect = || UnixStream::connect(&socket).unwrap();
    if conduct == "asks and hangs up" {
        for _ in 0..100 {
            connect().write_all(b"GET /v1/status HTTP/1.1\r\nHost: p2plus\r\n\r\n").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    } else {
        // Every connection that it can get, without a word.
        let _held: Vec<_> = (0..100).map(|_| connect()).collect();
        println!("held");
        let _ = std::io::stdin().read(&mut [0]);
    }
}

#[test]
fn strangers_that_ask_and_hang_up_leave_the_queue_to_root() {
    let host = lab();
    if !is_root(&host) {
        return;
    }
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let _daemon = Scripted::start_judging(&host, move |call| {
        // A node that is busy until the test says so.
        let _sender_is_gone_when_it_may_go_on = wait.recv();
        seen.lock().unwrap().push(call.caller.right);
        Ok(samples::reply(&call.request).into())
    });
    let stranger = stranger(&host, "asks and hangs up").wait_with_output().unwrap();
    let root = host.command(&["status"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(go_on);
    let root = root.wait_with_output().unwrap();
    assert!(stranger.status.success(), "{stranger:?}");
    assert!(root.status.success(), "{root:?}");
    let asked = asked.lock().unwrap();
    let strangers = asked.iter().filter(|right| **right == Right::Anybody).count();
    assert!((1..=8).contains(&strangers) && asked.contains(&Right::Admin), "{asked:?}");
}

#[test]
fn strangers_cannot_crowd_out_root() {
    let host = lab();
    if !is_root(&host) {
        return;
    }
    let _daemon = Scripted::start(&host, |request| Ok(samples::reply(request).into()));
    let mut stranger = stranger(&host, "holds");
    let mut said = BufReader::new(stranger.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.ends_with("held")), "the stranger failed");
    let status = host.run(&["status"]);
    let refused = run_as(&host, STRANGER, &["status"]);
    // It goes when nobody speaks to it any more.
    drop(stranger.stdin.take());
    assert!(stranger.wait().unwrap().success());
    assert_eq!(status.code, 0, "{status:?}");
    assert_eq!(refused.code, 3, "{refused:?}");
}

#[test]
fn an_old_ledger_is_warned_about() {
    let host = lab();
    let _daemon = Scripted::start(&host, |_| {
        let mut status = samples::status();
        status.ledger.age_seconds = Some(25 * 3600);
        Ok(Reply::Status(Box::new(status)).into())
    });
    let ended = host.run(&["status"]);
    assert_eq!(
        ended.stderr,
        "warning: the newest proof that the ledger is fresh is 25 hours old: no validator was heard since\n"
    );
}

#[test]
fn http_that_is_not_the_api_is_refused_with_the_documented_error() {
    let host = lab();
    let _daemon = Scripted::start(&host, |request| Ok(samples::reply(request).into()));
    let long = format!("POST /v1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n{}", "x".repeat(70_000));
    for (request, status, code) in [
        ("GET /v2/status HTTP/1.1\r\nHost: x\r\n\r\n", "404", "not_found"),
        ("DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "404", "not_found"),
        ("POST /v1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "400", "usage"),
        (&long, "400", "usage"),
    ] {
        let answer = raw(&host, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&value["api"], &value["error"]["code"]), (&serde_json::json!(1), &serde_json::json!(code)));
    }
    assert!(raw(&host, "garbage\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert_eq!(host.run(&["status"]).code, 0);
}

#[test]
fn events_reach_a_reader_as_they_happen() {
    let host = lab();
    let daemon = Scripted::start(&host, |request| Ok(samples::reply(request).into()));
    let mut stream = UnixStream::connect(host.run_dir().join("lab.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    while daemon.events.receiver_count() == 0 {
        std::thread::yield_now();
    }
    for height in [12, 13] {
        daemon.events.send(Event::Block { height, hash: "00".to_owned() }).unwrap();
    }
    let lines: Vec<String> =
        BufReader::new(stream).lines().map(Result::unwrap).filter(|line| line.starts_with('{')).take(2).collect();
    assert_eq!(lines, [r#"{"event":"block","height":12,"hash":"00"}"#, r#"{"event":"block","height":13,"hash":"00"}"#]);
}

#[test]
fn a_second_daemon_of_a_network_finds_the_first() {
    use p2plus::daemon::api::socket::ApiSocket;
    use p2plus::daemon::paths::Roots;
    let host = lab();
    let first = Scripted::start(&host, |request| Ok(samples::reply(request).into()));
    let roots = Roots { state_dir: host.state_dir(), run_dir: host.run_dir(), config_file: None };
    let paths = roots.network("lab".parse().unwrap());
    assert_eq!(ApiSocket::bind(&paths).err().map(|failure| failure.code), Some(ErrorCode::Conflict));
    assert_eq!(host.run(&["status"]).code, 0);
    drop(first);
}

#[test]
fn status_that_is_watched_ends_with_its_reader() {
    let host = lab();
    let _daemon = Scripted::start(&host, |request| Ok(samples::reply(request).into()));
    let mut child = host.command(&["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "lab is up\n");
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("it goes on for nobody");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_ticket_that_did_not_fit_the_disk_is_a_failure() {
    let host = lab();
    let _daemon = Scripted::start(&host, |request| Ok(samples::reply(request).into()));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = host.command(&["invite"]);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let ended = ended(&child.wait_with_output().unwrap());
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("No space left") && ended.stderr.contains("is final at height 13"), "{ended:?}");
}

#[test]
fn who_may_not_look_into_the_state_folder_is_not_told_that_there_is_no_network() {
    let host = lab();
    if !is_root(&host) {
        return;
    }
    std::fs::set_permissions(host.state_dir(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::create_dir_all(host.run_dir()).unwrap();
    for args in [["status"].as_slice(), &["up"], &["down"], &["leave"], &["-n", "lab", "up"], &["-n", "lab", "keys"]] {
        let ended = run_as(&host, STRANGER, args);
        assert_eq!(ended.code, 4, "{args:?}: {ended:?}");
        assert!(ended.stderr.contains("use sudo"), "{args:?}: {ended:?}");
    }
    let networks = run_as(&host, STRANGER, &["networks"]);
    assert_eq!((networks.code, networks.stdout.as_str()), (0, ""), "{networks:?}");
    assert!(networks.stderr.contains("only root may look"), "{networks:?}");
    // It may still wait for the daemon.
    assert_eq!(run_as(&host, STRANGER, &["wait", "--for", "online", "--timeout", "0.3"]).code, 7);
}
