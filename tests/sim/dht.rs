//! What the DHT gives is a record like any other: it brings members together that nothing else does, and whoever lies there gains nothing.

use crate::overlay::{Overlay, PATIENCE};
use crate::world::Weather;
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, VerifyingKey};
use p2plus::crypto::secret::Secret;
use p2plus::node::NodeEvent;
use p2plus::node::authoring::InvitationTerms;
use p2plus::node::dht::{Item, Place, Report, places, seal};
use p2plus::node::membership::{Bootstrap, Invitation};
use p2plus::session::LocalKeys;
use p2plus::time::UnixMillis;
use p2plus::wire::control::{NatKind, NodeRecord, SignedRecord};
use p2plus::wire::drops::DropReason;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// How long members who cannot find each other are watched: two looks of each, had they any to ask.
const IN_VAIN: Duration = Duration::from_secs(90);

/// The DHT: who has the key of an item writes it, and whoever asks reads it.
#[derive(Default)]
struct Dht {
    items: BTreeMap<VerifyingKey, Item>,
    /// When something was stored, and which member was looked up when, in seconds.
    stored: Vec<u64>,
    looked: Vec<(u64, NodeId)>,
}

impl Dht {
    /// Lets the network run for so long, each question answered within a second.
    fn serve(&mut self, overlay: &mut Overlay, span: Duration) {
        let mut left = span.as_secs();
        while left > 0 {
            left -= 1;
            overlay.world.run_for(Duration::from_secs(1));
            let second = overlay.world.now().instant.as_micros() / 1_000_000;
            for at in overlay.world.addresses() {
                let asked = overlay.world.with(at, |host, _| std::mem::take(&mut host.dht));
                let reports: Vec<_> = asked.into_iter().flat_map(|asked| self.answer(second, asked)).collect();
                for report in reports {
                    overlay.world.with(at, |host, now| host.order(now, |node| node.handle_dht(now, report)));
                }
            }
        }
    }

    fn answer(&mut self, second: u64, asked: NodeEvent) -> Vec<Report> {
        match asked {
            NodeEvent::Store(item) => {
                self.stored.push(second);
                let is_newer = |held: &Item| held.sequence < item.sequence;
                if self.items.get(&item.key).is_none_or(is_newer) {
                    self.items.insert(item.key, item);
                }
                vec![Report::Stored(8)]
            }
            NodeEvent::LookUp { member, places } => {
                self.looked.push((second, member));
                let found = places.into_iter().filter_map(|Place { week, key }| {
                    Some(Report::Found { member, week, value: self.items.get(&key)?.value.clone() })
                });
                found.chain([Report::Looked(member)]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Serves until a packet goes from one member to another. Returns the seconds that it took.
    fn talk(&mut self, overlay: &mut Overlay, [from, to]: [usize; 2], limit: Duration) -> Option<u64> {
        (1..=limit.as_secs()).find(|_| {
            let packet = overlay.send(from, to, false);
            self.serve(overlay, Duration::from_secs(1));
            overlay.received(to, &packet) > 0
        })
    }
}

fn use_dht(overlay: &mut Overlay, number: usize) {
    overlay.order(number, |node, now| node.use_dht(now, true));
}

/// Three members of whom each is elsewhere than the others know, all of them killed and started again.
fn estranged(seed: u64) -> Overlay {
    let mut overlay = Overlay::of(3, seed, Weather::FAIR);
    let machines = [0, 1, 2].map(|number| overlay.kill(number));
    for (number, mut machine) in (0..).zip(machines) {
        machine.address.set_port(5000 + number);
        overlay.addresses[usize::from(number)] = machine.address;
        overlay.revive(machine);
    }
    overlay
}

#[test]
fn members_whose_addresses_all_changed_find_each_other_by_the_dht_and_by_nothing_else() {
    for is_used in [false, true] {
        let (mut overlay, mut dht) = (estranged(51), Dht::default());
        if is_used {
            [0, 1, 2].into_iter().for_each(|number| use_dht(&mut overlay, number));
        }
        let pairs = [[1, 2], [2, 0], [0, 1]];
        let took: Vec<_> =
            pairs.map(|pair| dht.talk(&mut overlay, pair, if is_used { PATIENCE } else { IN_VAIN })).into();
        assert!(took.iter().all(|took| took.is_some() == is_used), "{took:?}");
        if !is_used {
            assert!(dht.stored.is_empty() && dht.looked.is_empty(), "nobody asked for it");
        }
    }
}

#[test]
fn whoever_is_in_touch_asks_the_dht_for_nobody_and_says_where_it_is_twice_an_hour_at_most() {
    let (mut overlay, mut dht) = (Overlay::of(3, 52, Weather::FAIR), Dht::default());
    [0, 1, 2].into_iter().for_each(|number| use_dht(&mut overlay, number));
    dht.serve(&mut overlay, Duration::from_secs(4 * 3600));
    assert_eq!(dht.looked, []);
    assert!((3 * 4..=3 * 9).contains(&dht.stored.len()), "{:?}", dht.stored);
    assert_eq!(dht.items.len(), 3);
}

#[test]
fn a_member_that_is_gone_is_looked_up_ever_less_often() {
    let (mut overlay, mut dht) = (Overlay::of(3, 53, Weather::FAIR), Dht::default());
    overlay.kill(2);
    [0, 1].into_iter().for_each(|number| use_dht(&mut overlay, number));
    dht.serve(&mut overlay, Duration::from_secs(3600));
    let gone: Vec<_> = dht.looked.iter().map(|(second, _)| *second).collect();
    assert!((6..=2 * 8).contains(&gone.len()), "{gone:?}");
    assert!(dht.looked.iter().all(|(_, member)| dht.looked[0].1 == *member), "nobody else is looked for");
}

#[test]
fn a_joiner_finds_by_the_dht_whom_its_ticket_names() {
    for is_used in [false, true] {
        let (mut overlay, mut dht) = (Overlay::of(2, 54, Weather::FAIR), Dht::default());
        let terms =
            InvitationTerms { name: None, tags: BTreeSet::new(), uses: 1, lifetime: Duration::from_secs(86_400) };
        let issued = overlay.order(0, |node, now| node.invite(now, terms)).unwrap();
        use_dht(&mut overlay, 0);
        dht.serve(&mut overlay, Duration::from_secs(10));
        let host = Bootstrap {
            id: overlay.id(0),
            transport_key: overlay.node(0).machine.transport().public_key(),
            // Where nobody is.
            endpoints: vec![SocketAddr::from(([198, 51, 100, 7], 4647))],
        };
        let joiner = overlay.join(Invitation { credential: Some(issued.secret), name: None, bootstrap: vec![host] });
        if is_used {
            use_dht(&mut overlay, joiner);
        }
        dht.serve(&mut overlay, PATIENCE);
        assert_eq!(overlay.node(0).node.policy().members().count() == 3, is_used);
    }
}

/// The keys of another network with the same members.
fn foreign_keys(overlay: &Overlay, number: usize) -> LocalKeys {
    let machine = &overlay.node(number).machine;
    LocalKeys::new(machine.transport(), machine.id(), Digest([9; 32]), Secret::new([8; 32]))
}

#[test]
fn whatever_the_dht_says_beside_the_newest_record_of_a_member_changes_nothing() {
    let mut overlay = Overlay::of(3, 55, Weather::FAIR);
    // Everybody has everybody's record.
    overlay.world.run_for(Duration::from_secs(60));
    let wall = UnixMillis(overlay.world.now().wall.0);
    let (id, keys) = (overlay.id(2), overlay.node(1).machine.local_keys());
    let network_id = keys.network_id;
    let node_key = |number: usize| overlay.node(number).machine.signing_key("node");
    let lie: SocketAddr = ([192, 0, 2, 66], 6666).into();
    let record = |of: NodeId, sequence| NodeRecord {
        id: of,
        sequence,
        endpoints: vec![lie],
        requests: Vec::new(),
        refused: Vec::new(),
        nat: NatKind::None,
        is_relay: false,
        homes: Vec::new(),
    };
    let far = wall.0 + 1_000_000;
    let value = |keys: &LocalKeys, record: &SignedRecord| seal(keys, record, wall, 1, [3; 12]).unwrap().value;
    let true_but_old = SignedRecord::sign(record(id, 1), &node_key(2), &network_id);
    let by_another = SignedRecord::sign(record(id, far), &node_key(1), &network_id);
    let of_another_network = SignedRecord::sign(record(id, far), &node_key(2), &Digest([9; 32]));
    // Around the change of week a member has two items.
    let newest = seal(&keys, &true_but_old, wall, 1, [3; 12]).unwrap().key;
    let week = places(&keys, &id, wall).into_iter().find(|place| place.key == newest).unwrap().week;
    let true_elsewhere = SignedRecord::sign(record(id, far), &node_key(2), &network_id);
    let lies = [
        ("rubbish", vec![7; 412], 1),
        ("nothing", Vec::new(), 1),
        ("sealed with another network's secret", value(&foreign_keys(&overlay, 2), &true_elsewhere), 1),
        ("signed by another member", value(&keys, &by_another), 1),
        ("signed for another network", value(&keys, &of_another_network), 1),
        ("an old one, replayed", value(&keys, &true_but_old), 0),
    ];
    // It is gone, and looked for all the time.
    let machine = overlay.kill(2);
    let is_called_there = |overlay: &mut Overlay, value: Vec<u8>| {
        let report = Report::Found { member: id, week, value };
        overlay.order(1, |node, now| node.handle_dht(now, report));
        overlay.world.wire = Some(Vec::new());
        overlay.world.run_for(Duration::from_secs(90));
        overlay.world.wire.take().unwrap().iter().any(|sighting| sighting.to == lie)
    };
    let believed = value(&keys, &true_elsewhere);
    for (what, value, refused) in lies {
        let before = overlay.node(1).dropped(DropReason::DhtRefused);
        assert!(!is_called_there(&mut overlay, value), "{what}: somebody is called upon there");
        assert_eq!(overlay.node(1).dropped(DropReason::DhtRefused) - before, refused, "{what}");
    }
    let before = overlay.node(1).dropped(DropReason::DhtRefused);
    assert!(is_called_there(&mut overlay, believed), "the same from the member itself is believed");
    assert_eq!(overlay.node(1).dropped(DropReason::DhtRefused), before);
    overlay.revive(machine);
    assert!(overlay.talk(1, 2, false, PATIENCE).is_some());
}
