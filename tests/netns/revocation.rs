//! Revoking: nobody hears the revoked member any more, whoever is restarted; and it can find out why.

use crate::capture::Capture;
use crate::lab::{Host, Lab, eventually};
use crate::node::{Node, PATIENCE, exchange, joiner, trio};
use crate::stream::{Ear, Stream};
use p2plus::wire::datagram::TYPE_TRANSPORT;
use serde_json::json;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Datagrams a second to each receiver.
const RATE: u32 = 1000;
/// What a second with the full rate has at least: threads are late on a machine that does other things too.
const MOST: usize = 800;
/// From the command to the last datagram that anybody hears: the promise.
const LIMIT: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

/// Drops what goes to a host, so that it does not learn that it was revoked and keeps sending.
fn deafen(lab: &Lab, host: &Host) {
    lab.router().rules(&format!(
        "table inet deaf {{ chain forward {{ type filter hook forward priority 0; oifname {} drop; }}; }}",
        host.router_link()
    ));
}

#[test]
fn a_member_that_sends_a_thousand_packets_a_second_is_heard_by_nobody_two_seconds_after_its_revocation() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada, ben] = trio(&mut lab);
    let ears = [Ear::open(&founder, founder.v4()), Ear::open(&ada, ada.v6())];
    let _stream = Stream::start(&ben, RATE, &[&ears[0], &ears[1]]);
    assert!(eventually(PATIENCE, || ears.iter().all(|ear| ear.count() > RATE as usize * 3 / 2)));
    deafen(&lab, ben.host());
    let capture = Capture::start(lab.router());
    let revoked = Instant::now();
    founder.ask(&["revoke", "ben"]);
    thread::sleep((revoked + LIMIT + 2 * SECOND).saturating_duration_since(Instant::now()));
    let seen = capture.end();

    for (ear, receiver) in ears.iter().zip([&founder, &ada]) {
        let before = ear.between(revoked - SECOND, revoked);
        assert!(before >= MOST, "{} heard {before} in the second before", receiver.name());
        let last = ear.last().unwrap().saturating_duration_since(revoked);
        println!("{} heard ben for {} ms after the command", receiver.name(), last.as_millis());
        assert!(last <= LIMIT, "{} heard ben {last:?} after the command", receiver.name());
        // He went on all the time: his datagrams crossed the router.
        let sent = seen.iter().filter(|seen| {
            let is_late = (revoked + LIMIT..revoked + LIMIT + SECOND).contains(&seen.at);
            let [from, to] = [(&ben, seen.from), (receiver, seen.to)]
                .map(|(node, seen)| [node.host().v4(), node.host().v6()].contains(&seen.ip()));
            is_late && from && to && seen.kind() == TYPE_TRANSPORT
        });
        let sent = sent.count();
        assert!(sent >= MOST, "ben sent {sent} to {} in a second", receiver.name());
    }
    exchange(&founder, &ada, [founder.v4(), ada.v4()]);
}

/// A copy of a node's folder.
fn save(node: &Node) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_files(&node.state(), copy.path());
    copy
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Starts a node with what it had on disk when it was a member: it believes to be one, handshakes and sends. Nobody may hear it;
/// it ends when it has learned what it is.
fn try_again_as_it_was(node: &mut Node, then: &tempfile::TempDir, receivers: &[&Node], ears: &[&Ear]) {
    copy_files(then.path(), &node.state());
    let refused = || receivers.iter().map(|receiver| receiver.drops("record_not_allowed")).sum::<u64>();
    let (refused_before, heard_before) = (refused(), ears.iter().map(|ear| ear.count()).sum::<usize>());
    let stream = Stream::start(node, RATE, ears);
    node.start();
    assert!(eventually(PATIENCE, || node.status()["network"]["state"] == "revoked"), "{}", node.status());
    // It did get through to them, as a guest that sends packets.
    assert!(eventually(PATIENCE, || refused() > refused_before), "{:?}", receivers[0].status()["drops"]);
    stream.stop();
    assert_eq!(ears.iter().map(|ear| ear.count()).sum::<usize>(), heard_before);
    node.stop();
}

#[test]
fn a_revocation_survives_the_restart_of_the_receivers_of_the_revoked_and_of_all() {
    let Some(mut lab) = Lab::new() else { return };
    let [mut founder, mut ada, mut ben] = trio(&mut lab);
    let ears = [Ear::open(&founder, founder.v4()), Ear::open(&ada, ada.v6())];
    let ears = [&ears[0], &ears[1]];
    ben.stop();
    let then = save(&ben);
    ben.start();
    ben.meet(&ada);
    founder.ask(&["revoke", "ben"]);
    assert!(eventually(PATIENCE, || ben.status()["network"]["state"] == "revoked"), "{}", ben.status());

    // The revoked node alone.
    ben.kill();
    try_again_as_it_was(&mut ben, &then, &[&founder, &ada], &ears);
    // The receivers, one of them by a power cut.
    founder.stop();
    ada.kill();
    founder.start();
    ada.start();
    try_again_as_it_was(&mut ben, &then, &[&founder, &ada], &ears);
    founder.meet(&ada);
    // All, and the founder, who signed it, does not come back.
    founder.stop();
    ada.stop();
    ada.start();
    try_again_as_it_was(&mut ben, &then, &[&ada], &ears[1..]);
}

#[test]
fn a_member_that_was_away_learns_of_a_revocation_from_another_while_the_founder_is_stopped() {
    let Some(mut lab) = Lab::new() else { return };
    let [mut founder, mut ada, mut ben] = trio(&mut lab);
    let cleo = joiner(&mut lab, &founder, "cleo");
    cleo.meet(&ada);
    ben.stop();
    let then = save(&ben);
    ada.stop();
    let height = founder.ask(&["revoke", "ben"])["height"].to_string();
    cleo.wait_for(&format!("height={height}"));
    founder.stop();

    ada.start();
    let ear = Ear::open(&ada, ada.v4());
    ada.wait_for(&format!("height={height}"));
    assert_eq!(ada.ask(&["whois", "ben"])["authorization"], "revoked");
    try_again_as_it_was(&mut ben, &then, &[&ada], &[&ear]);
    exchange(&ada, &cleo, [ada.v4(), cleo.v4()]);
}

#[test]
fn a_revoked_member_says_so_and_waits_for_nothing() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada, mut ben] = trio(&mut lab);
    founder.ask(&["revoke", "ben"]);
    for _ in 0..2 {
        assert!(eventually(PATIENCE, || ben.status()["network"]["state"] == "revoked"), "{}", ben.status());
        for condition in ["online", "synced", "peer=ada", "direct=founder", "height=1000"] {
            let message = ben.say(&["wait", "--for", condition, "--timeout", "60"]).refusal(6);
            assert!(message.contains("revoked"), "{condition}: {message}");
        }
        assert_eq!(ben.status()["network"]["addresses"], json!([]), "an address that nobody heeds");
        assert!(ben.say_plainly(&["status"]).out.contains("revoked"));
        ben.stop();
        ben.start();
    }
    for node in [&founder, &ada] {
        node.say(&["wait", "--for", "peer=ben", "--timeout", "0.3"]).refusal(7);
        node.say(&["ping", "ben"]).refusal(5);
    }
}

#[test]
fn a_member_that_was_revoked_while_it_was_away_never_meets_anybody() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, _ada, mut ben] = trio(&mut lab);
    ben.stop();
    let then = save(&ben);
    founder.ask(&["revoke", "ben"]);
    for _ in 0..5 {
        copy_files(then.path(), &ben.state());
        ben.start();
        ben.say(&["wait", "--for", "peer=ada", "--timeout", "60"]).refusal(6);
        ben.stop();
    }
}
