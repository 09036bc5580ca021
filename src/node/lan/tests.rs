use super::*;
use crate::crypto::exchange::TransportSecret;
use crate::crypto::hash::Digest;
use crate::crypto::secret::Secret;

/// The 27th of November 2026.
const TODAY: u64 = 20_784;

fn keys(seed: u8, network_secret: u8) -> LocalKeys {
    let transport = TransportSecret::from_bytes([seed; 32]);
    LocalKeys::new(transport, NodeId([seed; 32]), Digest([7; 32]), Secret::new([network_secret; 32]))
}

/// What the node of a seed says and knows on a day.
fn tags(seed: u8, network_secret: u8, day: u64) -> LanTags {
    let others = (1..=3).filter(|other| *other != seed).map(|other| NodeId([other; 32]));
    LanTags::new(&keys(seed, network_secret), day, true, others)
}

fn advert(tags: &LanTags) -> Advert {
    let (network, member) = tags.own.unwrap();
    Advert { network, member, endpoints: Vec::new() }
}

#[test]
fn a_member_is_known_by_its_tag_of_the_day_and_a_day_off() {
    let listener = tags(1, 9, TODAY);
    for (day, is_known) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
        let speaker = advert(&tags(2, 9, TODAY.checked_add_signed(day).unwrap()));
        assert_eq!(listener.who(&speaker), is_known.then_some(NodeId([2; 32])), "{day} days off");
    }
    assert_eq!(listener.who(&advert(&tags(1, 9, TODAY))), None, "nobody looks for himself");
}

#[test]
fn without_the_network_s_secret_nobody_makes_or_reads_a_tag() {
    let listener = tags(1, 9, TODAY);
    let stranger = advert(&tags(2, 8, TODAY));
    assert_eq!(listener.who(&stranger), None);
    let half_right = Advert { network: listener.own.unwrap().0, ..stranger };
    assert_eq!(listener.who(&half_right), None, "the network's tag can be repeated; a member's cannot be made");
    let other_half = Advert { member: advert(&tags(2, 9, TODAY)).member, ..advert(&tags(2, 8, TODAY)) };
    assert_eq!(listener.who(&other_half), None);
}

#[test]
fn tomorrow_s_tags_have_nothing_in_common_with_today_s() {
    let (today, tomorrow) = (tags(2, 9, TODAY).own.unwrap(), tags(2, 9, TODAY + 1).own.unwrap());
    assert!(today.0 != tomorrow.0 && today.1 != tomorrow.1);
    assert_ne!(today.1.0[..8], today.0.0);
}

#[test]
fn who_is_no_member_listens_and_says_nothing() {
    let joiner = LanTags::new(&keys(4, 9), TODAY, false, std::iter::once(NodeId([2; 32])));
    assert_eq!(joiner.own, None);
    assert_eq!(joiner.who(&advert(&tags(2, 9, TODAY))), Some(NodeId([2; 32])));
    assert_eq!(joiner.who(&advert(&tags(3, 9, TODAY))), None, "its ticket does not name this one");
}
