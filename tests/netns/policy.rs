//! Rules on the real kernel: what programs feel of them, and how soon.

use crate::lab::{Lab, eventually};
use crate::node::{Node, PATIENCE, accept, exchange, pair, trio};
use crate::stream::{Ear, Stream};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// From the command to the last datagram, or to the first one: the promise.
const LIMIT: Duration = Duration::from_secs(1);
/// How long a program that is refused may wait for that: far less than a connection that nobody answers.
const SOON: Duration = Duration::from_secs(3);

fn connect(from: &Node, to: SocketAddr) -> std::io::Result<TcpStream> {
    from.host().run(|| TcpStream::connect_timeout(&to, SOON))
}

/// Says whether a program hears soon that it may not.
fn is_refused(from: &Node, to: SocketAddr) -> bool {
    let begun = Instant::now();
    let error = connect(from, to).expect_err("connected");
    assert!(begun.elapsed() < SOON && error.kind() != ErrorKind::TimedOut, "{to}: {error}");
    true
}

/// Waits until a member's rules are those of the founder.
fn follows(node: &Node, founder: &Node) {
    let numbers = |node: &Node| {
        let rules = node.ask(&["policy", "show"]);
        rules.as_array().unwrap().iter().map(|rule| rule["number"].clone()).collect::<Vec<Value>>()
    };
    assert!(eventually(PATIENCE, || numbers(node) == numbers(founder)), "{:?}", numbers(node));
}

#[test]
fn what_no_rule_allows_is_refused_at_once_and_replies_pass() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada, ben] = trio(&mut lab);
    exchange(&ada, &ben, [ada.v4(), ben.v4()]);
    founder.ask(&["tag", "ben", "+ssh"]);
    founder.ask(&["allow", "ada", "tag:ssh:2222/tcp"]);
    let explained = ben.ask(&["explain", "ada", "founder:2222"]);
    assert_eq!((&explained["verdict"], &explained["number"]), (&json!("allow"), &json!(1)));
    founder.ask(&["policy", "rm", "1"]);
    follows(&ada, &founder);
    follows(&ben, &founder);

    for (listener, from, is_v4) in [(&ben, &ada, true), (&ben, &ada, false)] {
        let address = if is_v4 { listener.v4() } else { listener.v6() };
        let open = listener.host().run(|| TcpListener::bind((address, 2222))).unwrap();
        let mut out = connect(from, (address, 2222).into()).unwrap();
        let (mut inside, _) = accept(&open);
        out.write_all(b"question").unwrap();
        let mut heard = [0; 8];
        inside.read_exact(&mut heard).unwrap();
        inside.write_all(b"answered").unwrap();
        out.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"answered");
    }
    let listener = |node: &Node, port| {
        let address = node.v4();
        node.host().run(|| TcpListener::bind((address, port))).unwrap()
    };
    let _open = [listener(&ben, 2222), listener(&ben, 2223), listener(&ada, 2222)];
    assert!(is_refused(&ada, (ben.v4(), 2223).into()));
    assert!(is_refused(&ben, (ada.v4(), 2222).into()));
    assert!(is_refused(&founder, (ben.v4(), 2222).into()));
    assert!(!ada.host().command("ping").args(["-c1", "-W2", &ben.v4().to_string()]).status().unwrap().success());
    assert!(ada.drops("prohibited") > 0 && founder.drops("prohibited") > 0);

    let explained = ben.ask(&["explain", "ada", "ben:2222"]);
    assert_eq!((&explained["verdict"], &explained["number"]), (&json!("allow"), &json!(2)));
    assert_eq!(explained["signers"], json!(["founder"]));
    let refused = ben.ask(&["explain", "founder", "ben:2222"]);
    assert_eq!((&refused["verdict"], &refused["rule"]), (&json!("deny"), &Value::Null));
    // The overlay's own talk is nobody's to forbid.
    assert!(ada.say(&["ping", "ben", "-c", "1"]).code == 0);
    ben.say(&["allow", "ben", "*"]).refusal(6);
}

#[test]
fn a_rule_reaches_traffic_under_way_within_a_second() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada, ben] = trio(&mut lab);
    let ear = Ear::open(&ben, ben.v4());
    let _stream = Stream::start(&ada, 500, &[&ear]);
    assert!(eventually(PATIENCE, || ear.count() > 100));
    let mut spans = Vec::new();
    for round in 0..10 {
        let ordered = Instant::now();
        let number = founder.ask(&["deny", "ada", "ben"])["added"][0]["number"].to_string();
        thread::sleep(LIMIT.saturating_sub(ordered.elapsed()) + Duration::from_millis(100));
        let last = ear.last().unwrap().saturating_duration_since(ordered);
        let ordered = Instant::now();
        founder.ask(&["policy", "rm", &number]);
        assert!(
            eventually(LIMIT, || ear.first_after(ordered).is_some()),
            "{round}: nothing a second after it was allowed"
        );
        let first = ear.first_after(ordered).unwrap().saturating_duration_since(ordered);
        assert!(last < LIMIT && first < LIMIT, "{round}: {last:?} {first:?}");
        spans.extend([last, first]);
    }
    spans.sort_unstable();
    let [median, longest] = [spans[spans.len() / 2], spans[spans.len() - 1]].map(|span| span.as_millis());
    println!(
        "from the command to the last or first datagram over {} changes: median {median} ms, longest {longest} ms",
        spans.len()
    );
}

#[test]
fn a_file_is_tested_and_applied_as_a_whole() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let mut text = "allow ada founder:22/tcp\ndeny * *:23/tcp\n".to_owned();
    for number in 0..300u32 {
        text.push_str(&format!("allow {}/32 founder:80\n", Ipv4Addr::from_bits(0xc0a8_0000 + number)));
    }
    std::fs::write(path, format!("{text}test allow ada founder:23\n")).unwrap();
    let refusal = founder.say(&["policy", "apply", path]).refusal(10);
    assert!(refusal.contains("allow ada founder:23"), "{refusal}");
    founder.say(&["policy", "test", path]).any_data();
    std::fs::write(path, format!("{text}test deny founder ada:22\ntest allow ada founder:22\n")).unwrap();
    let dry = founder.ask(&["policy", "apply", path, "--dry-run"]);
    assert_eq!((dry["added"].as_array().unwrap().len(), dry["transactions"].as_array().unwrap().len()), (302, 0));
    assert_eq!(founder.ask(&["policy", "show"]).as_array().unwrap().len(), 1);
    let applied = founder.ask(&["policy", "apply", path]);
    assert_eq!(applied["removed"][0]["rule"], "allow * *");
    assert_eq!(founder.ask(&["policy", "show"]).as_array().unwrap().len(), 302);
    assert_eq!(founder.ask(&["policy", "test", path])["checks"].as_array().unwrap().len(), 2);
    let again = founder.ask(&["policy", "apply", path]);
    assert_eq!(again, json!({"added": [], "removed": [], "transactions": []}));
    follows(&ada, &founder);
    let to = |node: &Node| -> IpAddr { node.v4() };
    assert!(is_refused(&founder, (to(&ada), 22).into()));
    for (text, code) in [("permit a b\n", 2), ("allow nobody *\n", 5), ("# nothing\n", 2)] {
        std::fs::write(path, text).unwrap();
        founder.say(&["policy", "apply", path]).refusal(code);
    }
    assert_eq!(founder.ask(&["policy", "show"]).as_array().unwrap().len(), 302, "bad files change nothing");
}
