//! What members ask signers for beside subnets: to be relays.

use crate::overlay::{Overlay, WEATHERS};
use p2plus::wire::control::Wanted;
use std::net::SocketAddr;
use std::time::Duration;

/// Time for a record to reach everybody.
const SPREAD: Duration = Duration::from_secs(30);

fn relay(port: u16) -> Wanted {
    let endpoints = [[203, 0, 113, 6], [203, 0, 113, 7]].map(|address| Some(SocketAddr::from((address, port))));
    Wanted::Relay { endpoints, tls_port: 443 }
}

#[test]
fn a_member_that_asks_to_be_a_relay_is_one_everywhere_once_a_signer_approves() {
    let mut overlay = Overlay::of(4, 97, WEATHERS[1]);
    let asked = |overlay: &mut Overlay, at| overlay.order(at, |node, now| node.asked(now));
    // Nothing that the ledger would refuse waits for a signer.
    let nowhere = Wanted::Relay { endpoints: [Some("127.0.0.1:4647".parse().unwrap()), None], tls_port: 0 };
    overlay.order(3, |node, now| node.request(now, nowhere)).unwrap();
    overlay.order(2, |node, now| node.request(now, relay(1))).unwrap();
    overlay.order(2, |node, now| node.request(now, Wanted::Exit)).unwrap();
    let id = overlay.order(2, |node, now| node.request(now, relay(4647))).unwrap();
    overlay.world.run_for(SPREAD);
    let waiting = asked(&mut overlay, 0);
    assert_eq!(waiting.iter().map(|asked| asked.request.wanted).collect::<Vec<_>>(), [Wanted::Exit, relay(4647)]);
    assert_eq!(waiting[1].id, id);
    overlay.order(0, |node, now| node.approve(now, &waiting[1])).unwrap();
    overlay.world.run_for(SPREAD);
    assert_eq!(asked(&mut overlay, 2).len(), 1, "what the ledger gave is asked for no more");
    let own = overlay.id(2);
    for at in 0..4 {
        let (relay, places) = overlay.order(at, |node, _| {
            let member = node.policy().member(&own).unwrap();
            (member.relay.clone().unwrap(), member.static_endpoints.clone())
        });
        assert_eq!((relay.tls_port(), relay.class()), (Some(443), 2), "{at}");
        assert_eq!(places, ["203.0.113.6:4647", "203.0.113.7:4647"].map(|text| text.parse().unwrap()));
    }
    assert!(overlay.order(2, |node, now| node.withdraw(now, |wanted| *wanted == Wanted::Exit)));
    assert!(!overlay.order(2, |node, now| node.withdraw(now, |wanted| matches!(wanted, Wanted::Relay { .. }))));
}
