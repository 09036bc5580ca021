//! The underlay delays some datagrams, so that others overtake them, and doubles some.

use crate::cable::{Cable, Fate};
use crate::kernel::{assert_undamaged, counted};
use crate::lab::{Host, Lab};
use crate::node::{pair_on, transfer};
use std::net::UdpSocket;
use std::time::Duration;

const TRANSFER_LEN: usize = 5_000_000;
/// Datagrams of one family.
const COUNT: u32 = 2_000;
/// In flight at most: less than any queue holds.
const WINDOW: u32 = 50;

/// Every fifth frame is doubled, every seventh comes two milliseconds late.
fn disorder() -> impl FnMut() -> Fate + Send + 'static {
    let mut number = 0u32;
    move || {
        number = number.wrapping_add(1);
        match (number % 5, number % 7) {
            (_, 0) => Fate::Delay(Duration::from_millis(2)),
            (0, _) => Fate::Double,
            _ => Fate::Pass,
        }
    }
}

/// Sends numbered datagrams; each arrives once, in whatever order.
fn each_arrives_once(from: &UdpSocket, to: &UdpSocket) {
    let target = to.local_addr().unwrap();
    let mut copies = vec![0; COUNT as usize];
    let mut buffer = [0; 1_200];
    let mut receive = || {
        let len = to.recv(&mut buffer).unwrap();
        let number = u32::from_be_bytes(*buffer.first_chunk().unwrap());
        assert_eq!(len, 100 + number as usize % 1_000);
        copies[number as usize] += 1;
    };
    for number in 0..COUNT {
        let mut payload = vec![7; 100 + number as usize % 1_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        from.send_to(&payload, target).unwrap();
        if number >= WINDOW {
            receive();
        }
    }
    (0..WINDOW).for_each(|_| receive());
    to.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(to.recv(&mut [0; 1]).is_err(), "more than were sent");
    assert!(copies.iter().all(|copies| *copies == 1), "{copies:?}");
}

#[test]
fn what_overtakes_arrives_whole_and_what_is_doubled_arrives_once() {
    let Some(mut lab) = Lab::new() else { return };
    let hosts = [lab.host("founder"), lab.host("ada")];
    let (_cable, ada) = Cable::plug(&mut lab, &hosts[1], disorder());
    let [founder, ada] = pair_on([&hosts[0], &ada], Host::v4);
    for addresses in [[founder.v4(), ada.v4()], [founder.v6(), ada.v6()]] {
        transfer(&founder, &ada, addresses[1], TRANSFER_LEN);
        transfer(&ada, &founder, addresses[0], TRANSFER_LEN);
        let [here, there]: [UdpSocket; 2] = [founder.udp(addresses[0]), ada.udp(addresses[1])];
        each_arrives_once(&here, &there);
        each_arrives_once(&there, &here);
    }
    for node in [&founder, &ada] {
        assert!(node.drops("replayed") > u64::from(COUNT) / 10, "{}", node.status());
        assert!(counted(node.host(), "TcpExtTCPOFOQueue") > 0, "nothing overtook");
        assert_undamaged(&[node.host()]);
    }
}
