//! Ways in plain words: why a peer is reached as it is, how this node is placed, what it relays.

use super::api::reach::{
    CircuitView, MappingView, NetReport, PlacementView, ReachReply, ReachRequest, RelayReport, RelayView, Sighting,
    WayView, WhyReport,
};
use super::api::request::Reply;
use super::config::RelayMode;
use super::failure::Failure;
use super::orders::{Surroundings, member};
use super::views;
use crate::crypto::identity::NodeId;
use crate::io::clock::OsRng;
use crate::io::port_map::PortMapState;
use crate::node::Node;
use crate::node::reachability::{Explanation, KnownWay, Placement};
use crate::node::relay::{CircuitStatus, MAX_LABELS};
use crate::node::status::{PeerStatus, Way};
use crate::path::{CandidateSource, PathMtu};
use crate::time::Now;
use crate::wire::control::NatKind;
use std::time::Duration;

/// What helps where a NAT is in the way.
const FORWARD: &str =
    "forward a UDP port to one of the two and name it under `endpoints` in [underlay], or allow UPnP or NAT-PMP there";

/// What helps where UDP does not pass.
const ALLOW_UDP: &str =
    "allow UDP out of this network: over TLS everything shares one connection, and one loss holds it all up";

/// Answers a question about ways.
///
/// # Errors
/// Nobody has such a name.
pub fn answer(
    node: &Node<OsRng>,
    now: Now,
    around: &Surroundings<'_>,
    request: &ReachRequest,
) -> Result<Reply, Failure> {
    Ok(Reply::Reach(match request {
        ReachRequest::Why(why) => {
            let member = member(node, &why.peer)?.clone();
            let status = node.peer_status(now.instant, &member);
            ReachReply::Why(report(&status, &node.explain_ways(now.instant, &member)))
        }
        ReachRequest::NetCheck => ReachReply::NetCheck(check(node, now, around)),
        ReachRequest::Relaying => ReachReply::Relaying(relaying(node, now, around.relay_mode)),
    }))
}

fn report(status: &PeerStatus, known: &Explanation) -> WhyReport {
    let (reason, advice) = judge(status, known);
    WhyReport {
        peer: status.member.name.clone(),
        path: views::path(status.way.clone()),
        reason,
        mtu: match known.mtu {
            PathMtu::Known(bytes) => Some(bytes),
            PathMtu::Unknown => None,
        },
        advice: advice.into_iter().map(str::to_owned).collect(),
        own: placement(&known.own),
        remote: known.peer.as_ref().map(placement),
        ways: known.ways.iter().map(way).collect(),
    }
}

/// Says why, and what would help.
fn judge(status: &PeerStatus, known: &Explanation) -> (String, Vec<&'static str>) {
    let nats = (known.own.nat, known.peer.as_ref().map_or(NatKind::Unknown, |peer| peer.nat));
    match &status.way {
        Some(Way::Direct(endpoint)) => (format!("direct: {endpoint} answers"), Vec::new()),
        Some(Way::Relayed(relay)) => {
            let (why, advice) = why_relayed(nats, known);
            (format!("through {relay}: {why}"), advice)
        }
        Some(Way::Stream(relay)) => {
            let is_it = *relay == status.member.name;
            let way = if is_it { "over TLS".to_owned() } else { format!("over TLS through {relay}") };
            let why = format!("{way}: UDP does not pass between this node and {relay}");
            (why, vec![ALLOW_UDP])
        }
        None if known.is_guest_there => {
            ("the peer does not know yet that this node is a member".to_owned(), vec!["wait until its ledger is fresh"])
        }
        None if known.peer.is_none() && known.ways.is_empty() => {
            let why = "nobody has told where it is: it was not in touch with anybody since this node started";
            (why.to_owned(), vec!["see whether its daemon runs, and `p2plus status` there"])
        }
        None if known.is_connecting => ("a handshake is under way".to_owned(), Vec::new()),
        None if known.has_failed => {
            let why = "it answers nowhere: its daemon is down, or nothing passes between the two";
            (why.to_owned(), vec!["see `p2plus status` there, and `p2plus netcheck` on both"])
        }
        None => ("nothing was to be sent to it lately; `p2plus ping` begins".to_owned(), Vec::new()),
    }
}

/// Says why a direct path is not there, by what both NATs do (RFC 4787 §4.1).
fn why_relayed(nats: (NatKind, NatKind), known: &Explanation) -> (String, Vec<&'static str>) {
    use NatKind::{Dependent, Independent};
    let tried = known.ways.iter().filter(|way| matches!(way.way, Way::Direct(_)) && way.is_tried).count();
    let opening = match known {
        Explanation { is_searching: true, .. } => "; ports are being searched",
        Explanation { is_punching: true, .. } => "; a direct path is being tried from both sides",
        _ => "",
    };
    match nats {
        (Dependent, Dependent) => {
            let why = "both NATs choose another port towards each other, which nobody can know";
            (why.to_owned(), vec![FORWARD])
        }
        (Dependent, _) => (format!("this node's NAT chooses another port towards each other{opening}"), vec![FORWARD]),
        (_, Dependent) => (format!("the peer's NAT chooses another port towards each other{opening}"), vec![FORWARD]),
        (Independent, Independent) if tried > 0 => {
            let why = format!("none of {tried} direct ways answered: a firewall on one side drops UDP{opening}");
            (why, vec!["allow UDP to this node's port, see `p2plus netcheck`"])
        }
        _ if tried == 0 => (format!("no direct way was tried yet{opening}"), Vec::new()),
        _ => (format!("none of {tried} direct ways answered{opening}"), vec![FORWARD]),
    }
}

fn check(node: &Node<OsRng>, now: Now, around: &Surroundings<'_>) -> NetReport {
    let own = node.placement();
    let peers = node.peers(now);
    let is_used = |is_meant: fn(&Way) -> bool| {
        peers.iter().any(|peer| peer.session.is_some() && peer.way.as_ref().is_some_and(is_meant))
    };
    let is_stream = |way: &Way| matches!(way, Way::Stream(_));
    let (has_udp, has_tls) = (is_used(|way| !matches!(way, Way::Stream(_))), is_used(is_stream));
    let mut advice = Vec::new();
    if peers.is_empty() {
        advice.push("there is no other member yet");
    } else if has_tls {
        advice.push(ALLOW_UDP);
    } else if !has_udp {
        advice.push("no peer answers by UDP: a firewall drops it, or all of them are down");
    } else if !own.is_reachable && own.homes.is_empty() {
        advice.push("nobody came here unasked, and no member relays: `p2plus relay on` at one that everybody reaches");
    } else if own.nat == NatKind::Dependent && !own.is_reachable {
        advice.push(FORWARD);
    }
    NetReport {
        own: placement(&own),
        listen: around.listen.clone(),
        udp: has_udp,
        tls: has_tls,
        mapping: mapping(around.port_mapping),
        seen: node.sightings().into_iter().map(|(by, endpoint)| Sighting { by, endpoint }).collect(),
        advice: advice.into_iter().map(str::to_owned).collect(),
    }
}

fn mapping(state: PortMapState) -> MappingView {
    let of = |state: &str| MappingView { state: state.to_owned(), endpoint: None, by: None, reason: None };
    match state {
        PortMapState::Off => of("off"),
        PortMapState::NoGateway => of("no-gateway"),
        PortMapState::Searching => of("searching"),
        PortMapState::Mapped { external, by } => {
            MappingView { endpoint: Some(external.into()), by: Some(by.to_string()), ..of("mapped") }
        }
        PortMapState::Unmapped(refusal) => MappingView { reason: Some(refusal.to_string()), ..of("unmapped") },
    }
}

fn relaying(node: &Node<OsRng>, now: Now, mode: RelayMode) -> RelayReport {
    let (limits, is_relay) = node.relay_limits();
    let name = |id: &NodeId| node.policy().member(id).map_or_else(|| id.to_string(), |member| member.name.clone());
    let circuits = node.circuits(now.instant);
    let view = |circuit: &CircuitStatus| CircuitView {
        between: circuit.ends.each_ref().map(name),
        bytes: circuit.bytes,
        idle_seconds: circuit.idle.as_secs(),
    };
    RelayReport {
        mode: mode.name().to_owned(),
        relaying: is_relay,
        reachable: node.placement().is_reachable,
        rate: limits.whole_rate,
        member_rate: limits.member_rate,
        labels: 2 * circuits.len(),
        max_labels: MAX_LABELS,
        circuits: circuits.iter().map(view).collect(),
    }
}

fn placement(own: &Placement) -> PlacementView {
    let relay = |(name, rtt): &(String, Duration)| RelayView { name: name.clone(), rtt_ms: views::milliseconds(*rtt) };
    PlacementView {
        nat: own.nat.name().to_owned(),
        reachable: own.is_reachable,
        endpoints: own.endpoints.clone(),
        relays: own.homes.iter().map(relay).collect(),
    }
}

fn way(known: &KnownWay) -> WayView {
    let path = views::path(Some(known.way.clone()));
    let state = match known {
        KnownWay { is_used: true, .. } => "used",
        KnownWay { has_answered: true, .. } => "answered",
        KnownWay { is_tried: true, .. } => "silent",
        _ => "untried",
    };
    let source = match known.source {
        Some(CandidateSource::Record) => "record",
        Some(CandidateSource::Lan) => "lan",
        Some(CandidateSource::Remembered) => "remembered",
        Some(CandidateSource::Observed) => "observed",
        Some(CandidateSource::Ledger) => "ledger",
        Some(CandidateSource::Configured) => "configured",
        None => "relay",
    };
    WayView {
        kind: path.kind,
        endpoint: path.endpoint,
        relay: path.relay,
        source: source.to_owned(),
        state: state.to_owned(),
        heard_seconds: known.heard.map(|heard| heard.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(nat: NatKind) -> Placement {
        Placement { nat, is_reachable: false, endpoints: Vec::new(), homes: vec![("r".to_owned(), Duration::ZERO)] }
    }

    fn known(own: NatKind, peer: NatKind, is_tried: bool) -> Explanation {
        let way = KnownWay {
            way: Way::Direct("192.0.2.1:1".parse().unwrap()),
            source: Some(CandidateSource::Record),
            is_used: false,
            is_tried,
            has_answered: false,
            heard: None,
        };
        Explanation {
            own: placed(own),
            peer: Some(placed(peer)),
            ways: vec![way],
            mtu: PathMtu::Unknown,
            is_connecting: false,
            has_failed: false,
            is_punching: true,
            is_searching: false,
            is_guest_there: false,
        }
    }

    #[test]
    fn the_reason_for_a_relay_names_the_nat_that_is_in_the_way() {
        use NatKind::{Dependent, Independent, Unknown};
        for (own, peer, part) in [
            (Dependent, Dependent, "both NATs"),
            (Dependent, Independent, "this node's NAT"),
            (Independent, Dependent, "the peer's NAT"),
            (Independent, Independent, "a firewall"),
            (Unknown, Independent, "none of 1"),
        ] {
            let (reason, advice) = why_relayed((own, peer), &known(own, peer, true));
            assert!(reason.contains(part) && !advice.is_empty(), "{own:?} {peer:?}: {reason}");
        }
        let searching = Explanation { is_searching: true, ..known(Dependent, Independent, true) };
        let (reason, _) = why_relayed((Dependent, Independent), &searching);
        assert!(reason.ends_with("; ports are being searched"), "{reason}");
        let (reason, _) = why_relayed((Unknown, Unknown), &known(Unknown, Unknown, false));
        assert!(reason.contains("no direct way was tried yet; a direct path is being tried"), "{reason}");
    }

    #[test]
    fn each_state_of_a_way_has_a_word() {
        let mut known = known(NatKind::Unknown, NatKind::Unknown, false).ways.remove(0);
        assert_eq!(way(&known).state, "untried");
        known.is_tried = true;
        assert_eq!(way(&known).state, "silent");
        known.has_answered = true;
        assert_eq!(way(&known).state, "answered");
        known.is_used = true;
        assert_eq!((way(&known).state.as_str(), way(&known).source.as_str()), ("used", "record"));
    }
}
