use super::*;
use crate::crypto::exchange::TransportSecret;
use crate::crypto::hash::Digest;
use crate::wire::control::{NatKind, NodeRecord};
use crate::wire::dht::MAX_VALUE_LEN;
use std::collections::BTreeSet;

/// The 27th of November 2026, a Friday; weeks begin on Thursdays, as 1970 did.
const TODAY: UnixMillis = UnixMillis(20_784 * 86_400_000);
const THURSDAY: UnixMillis = UnixMillis(20_783 * 86_400_000);

const HOUR: Duration = Duration::from_secs(3600);

fn keys(network_secret: u8) -> LocalKeys {
    let transport = TransportSecret::from_bytes([1; 32]);
    LocalKeys::new(transport, NodeId([1; 32]), Digest([7; 32]), Secret::new([network_secret; 32]))
}

fn record(seed: u8) -> SignedRecord {
    let key = SigningKey::from_seed(&[seed; 32]);
    let record = NodeRecord {
        id: key.node_id(),
        sequence: 5,
        endpoints: vec!["192.0.2.77:4647".parse().unwrap()],
        requests: Vec::new(),
        refused: Vec::new(),
        nat: NatKind::None,
        is_relay: true,
        homes: Vec::new(),
    };
    SignedRecord::sign(record, &key, &Digest([7; 32]))
}

fn sealed(seed: u8, network_secret: u8, wall: UnixMillis) -> Item {
    seal(&keys(network_secret), &record(seed), wall, 9, [seed; NONCE_LEN]).unwrap()
}

#[test]
fn what_a_member_stores_is_found_and_opened_by_all_who_know_the_network_s_secret() {
    let (item, id) = (sealed(2, 9, TODAY), record(2).claimed_id());
    let places = places(&keys(9), &id, TODAY);
    let [place] = places[..] else { panic!("{places:?}") };
    assert_eq!(place.key, item.key);
    assert_eq!(item.key.verify(&signed_part(9, &item.value), &item.signature), Ok(()));
    assert_eq!(open(&keys(9), &id, place.week, &item.value), Ok(record(2)));
    assert!(item.value.len() <= MAX_VALUE_LEN);
}

#[test]
fn without_the_network_s_secret_nobody_finds_an_item_or_reads_one_or_writes_one_that_is_read() {
    let (item, id) = (sealed(2, 9, TODAY), record(2).claimed_id());
    let week = week_of(TODAY);
    assert!(places(&keys(8), &id, TODAY).iter().all(|place| place.key != item.key));
    assert_eq!(open(&keys(8), &id, week, &item.value), Err(ValueError::Unauthenticated));
    assert_eq!(open(&keys(9), &id, week, &sealed(2, 8, TODAY).value), Err(ValueError::Unauthenticated));
    for len in [0, NONCE_LEN, NONCE_LEN + TAG_LEN, item.value.len() - 1] {
        assert_eq!(open(&keys(9), &id, week, &item.value[..len]), Err(ValueError::Unauthenticated));
    }
}

#[test]
fn a_value_counts_for_its_own_member_and_week() {
    let (item, id) = (sealed(2, 9, TODAY), record(2).claimed_id());
    let (week, other) = (week_of(TODAY), record(3).claimed_id());
    assert_eq!(open(&keys(9), &id, week + 1, &item.value), Err(ValueError::Unauthenticated));
    assert_eq!(open(&keys(9), &other, week, &item.value), Err(ValueError::Unauthenticated));
    // Whoever knows the secret can seal anything: somebody else's record, or none.
    let seal_for = |id: &NodeId, text: &[u8]| {
        let mut text = text.to_vec();
        let tag = seal_chacha20_poly1305(&sealing_key(&keys(9), id, week), &[0; NONCE_LEN], b"", &mut text);
        [&[0; NONCE_LEN], &text[..], &tag].concat()
    };
    let foreign = seal_for(&other, &pad(&record(2)).unwrap());
    assert_eq!(open(&keys(9), &other, week, &foreign), Err(ValueError::Another));
    assert_eq!(open(&keys(9), &id, week, &seal_for(&id, &[1; 384])), Err(ValueError::Malformed));
    assert_eq!(open(&keys(9), &id, week, &seal_for(&id, b"")), Err(ValueError::Malformed));
}

#[test]
fn no_two_items_of_a_network_have_anything_in_common() {
    let weeks = [TODAY, TODAY.after(7 * 24 * HOUR)];
    let items: Vec<_> = [2, 3].into_iter().flat_map(|seed| weeks.map(|wall| sealed(seed, 9, wall))).collect();
    assert_eq!(items.iter().map(|item| item.key).collect::<BTreeSet<_>>().len(), 4);
    // Nor does anything of what is sealed or derived from show.
    let signed = borsh::to_vec(&record(2)).unwrap();
    let secrets = [&signed[..32], &signed[40..54], &[9; 32], &[7; 32], b"192.0.2.77"];
    for item in &items {
        let stored = [&item.key.0[..], &item.signature.0, &item.value].concat();
        for secret in secrets {
            assert!(!stored.windows(8).any(|window| secret.windows(8).any(|other| other == window)));
        }
    }
}

#[test]
fn around_the_change_of_week_the_items_of_both_are_looked_up() {
    let (keys, id) = (keys(9), NodeId([2; 32]));
    let weeks = |wall: UnixMillis| places(&keys, &id, wall).iter().map(|place| place.week).collect::<Vec<_>>();
    let new = week_of(THURSDAY);
    assert_eq!(week_of(UnixMillis(THURSDAY.0 - 1)), new - 1);
    let before = |span: Duration| UnixMillis(THURSDAY.0 - span.as_millis() as u64);
    assert_eq!(weeks(before(4 * HOUR)), [new - 1]);
    assert_eq!(weeks(before(2 * HOUR)), [new - 1, new]);
    assert_eq!(weeks(THURSDAY.after(2 * HOUR)), [new - 1, new]);
    assert_eq!(weeks(THURSDAY.after(4 * HOUR)), [new]);
    assert_eq!(weeks(UnixMillis(0)), [0], "a clock that was never set");
}
