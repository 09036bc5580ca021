//! The overlay's addresses on the interface, whatever else happens on the host.

use crate::lab::{Lab, eventually};
use crate::node::{NETWORK, PATIENCE, exchange, pair};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

#[test]
fn an_overlay_address_that_somebody_removes_comes_back_also_on_a_host_that_never_rests() {
    let Some(mut lab) = Lab::new() else { return };
    let [founder, ada] = pair(&mut lab);
    let (host, device) = (ada.host(), format!("p2p-{NETWORK}"));
    // With its prefix length.
    let find = |address: IpAddr| {
        let shown = host.ip(&format!("-o addr show dev {device}"));
        shown.split_whitespace().find(|word| word.starts_with(&format!("{address}/"))).map(str::to_owned)
    };
    let (stop, started) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            // Quicker than changes settle.
            while !stop.load(Ordering::Relaxed) && started.elapsed() < 3 * PATIENCE {
                host.ip("addr add 198.51.100.7/32 dev lo");
                host.ip("addr del 198.51.100.7/32 dev lo");
            }
        });
        let come_back = [ada.v4(), ada.v6()].map(|address| {
            let given = find(address).unwrap();
            host.ip(&format!("addr del {given} dev {device}"));
            eventually(PATIENCE, || find(address).as_ref() == Some(&given))
        });
        stop.store(true, Ordering::Relaxed);
        assert_eq!(come_back, [true, true], "{}", ada.log());
    });
    exchange(&ada, &founder, [ada.v4(), founder.v4()]);
    exchange(&ada, &founder, [ada.v6(), founder.v6()]);
    assert_eq!(ada.drops("address_conflict"), 0, "{}", ada.status());
}
