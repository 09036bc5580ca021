//! TCP through the tunnel while its datagrams are lost, one by one.

use crate::kernel::{assert_undamaged, counted, features};
use crate::lab::{Host, Lab};
use crate::node::{Said, pair, transfer};

/// The least UDP length of a datagram with a full segment: acknowledgements are shorter.
const FULL_LEN: u32 = 1000;

/// Loses `per_mille` of a thousand of the datagrams that cross the router.
fn lose(router: &Host, per_mille: u32) {
    let lost = format!("numgen random mod 1000 < {per_mille}");
    router.rules(&format!(
        "table inet loss {{ counter crossed {{ }}; counter lost {{ }};
            chain forward {{ type filter hook forward priority 0;
                udp length >= {FULL_LEN} counter name crossed
                udp length >= {FULL_LEN} {lost} counter name lost drop
                udp length < {FULL_LEN} {lost} drop; }}; }}"
    ));
}

/// How many full datagrams crossed the router, or were lost there.
fn full_datagrams(router: &Host, counter: &str) -> u64 {
    let said =
        Said::of(&router.command("nft").args(["-j", "list", "counter", "inet", "loss", counter]).output().unwrap());
    let listed: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    listed["nftables"][1]["counter"]["packets"].as_u64().unwrap()
}

/// Moves `len` bytes inside IPv4 and IPv6. Returns the segments that were sent again per lost datagram.
fn transfer_with_loss(per_mille: u32, len: usize) -> f64 {
    let Some(mut lab) = Lab::new() else { return 0.0 };
    let [founder, ada] = pair(&mut lab);
    for node in [&founder, &ada] {
        node.host().sysctl("net/ipv4/tcp_congestion_control", "reno");
        // A train that is cut in the host is datagrams on the wire.
        features(node.host(), "eth0", "tx-udp-segmentation off");
    }
    lose(lab.router(), per_mille);
    for address in [founder.v4(), founder.v6()] {
        transfer(&ada, &founder, address, len);
    }
    assert_undamaged(&[founder.host(), ada.host()]);
    let (crossed, lost) = (full_datagrams(lab.router(), "crossed"), full_datagrams(lab.router(), "lost"));
    assert!(crossed as usize >= 2 * len / 1400, "{crossed} datagrams crossed: trains");
    let again = counted(ada.host(), "TcpRetransSegs");
    // Where an end of the tunnel is the narrowest place, it tells the sender so by losses of its own.
    let told = ada.drops("queue_standing") + founder.drops("congested");
    println!("{crossed} full datagrams, {lost} lost, {told} by standing queues, {again} segments sent again");
    again as f64 / (lost + told) as f64
}

#[test]
fn a_lost_datagram_costs_one_segment() {
    for (per_mille, len) in [(5, 30_000_000), (20, 20_000_000)] {
        let cost = transfer_with_loss(per_mille, len);
        assert!(cost < 1.1, "{per_mille} of 1000 lost: {cost} segments sent again for each");
    }
}

#[test]
fn tcp_gets_through_a_loss_of_a_tenth() {
    transfer_with_loss(100, 500_000);
}
