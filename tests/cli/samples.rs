//! One fixed value of each documented type.

use p2plus::daemon::api::link::{BridgeView, Bridged, LinkRequest, SegmentView, StationView};
use p2plus::daemon::api::names::*;
use p2plus::daemon::api::policy::{CheckOutcome, Checked, Explanation, PolicyChanged, RuleView, Verdict};
use p2plus::daemon::api::reach::{
    CircuitView, MappingView, NetReport, PlacementView, ReachReply, ReachRequest, RelayReport, RelayView, Sighting,
    WayView, WhyReport,
};
use p2plus::daemon::api::relays::RelayRequest;
use p2plus::daemon::api::request::{Reply, Request};
use p2plus::daemon::api::routes::{AcceptedView, ExitView, RequestView, RouteView, RouterView};
use p2plus::daemon::api::types::*;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const A: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90";
const B: &str = "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfb0b1b2b3b4b5b6b7b8b9babbbcbdbebf";
const C: &str = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfc0c1c2c3c4c5c6c7c8c9cacbcccdcecf";
const HASH: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const PARENT: &str = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff101112131415161718191a1b1c1d1e1f";
const TX: &str = "5a5b5c5d5e5f606162636465666768696a6b6c6d6e6f70717273747576777879";
/// 2026-11-21 02:51:07 UTC.
const TIME: u64 = 1_795_229_467;

pub fn ticket() -> String {
    format!("p2plus1{}", "qpzry9x8gf2tvdw0s3jn54khce6mua7l".repeat(12))
}

fn ticket_text() -> TicketText {
    TicketText::new(Zeroizing::new(ticket()))
}

fn ips(texts: &[&str]) -> Vec<std::net::IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub fn status() -> Status {
    Status {
        node: NodeStatus { id: A.into(), name: "a".into(), version: "0.1.0".into(), uptime_seconds: 7384 },
        network: NetworkStatus {
            id: HASH.into(),
            name: "lab".into(),
            state: NetworkState::Up,
            reason: None,
            addresses: ips(&["10.77.0.1", "fd5a:1b2c:3d4e::a1b2"]),
            device: DeviceStatus { name: Some("p2p-lab".into()), mode: DeviceMode::Tun, mtu: 1400 },
            listen: vec!["0.0.0.0:4647".parse().unwrap(), "[::]:4647".parse().unwrap()],
            conflicts: vec![],
            problems: vec![],
        },
        ledger: ledger_status(),
        peers: peers(),
        drops: BTreeMap::from([("no_route".into(), 3), ("replayed".into(), 1)]),
        degraded: BTreeMap::from([("sent_singly".into(), 45)]),
    }
}

pub fn overlapped() -> Status {
    let mut status = status();
    let with = "eth0\u{1b}[2J 10.77.0.0/24".into();
    status.network.conflicts = vec![AddressConflict { prefix: "10.77.0.0/24".into(), with }];
    status.network.problems = vec!["the program nft is missing: install nftables\u{1b}[2J".into()];
    status.peers.clear();
    status.drops.clear();
    status
}

pub fn joining() -> Status {
    let mut status = status();
    status.network.state = NetworkState::Joining;
    status.network.reason = Some("waiting for validators (last seen 12 s ago)\u{1b}[2J".into());
    status.network.addresses.clear();
    status.ledger.age_seconds = None;
    status.ledger.role = LedgerRole::Full;
    status.peers.clear();
    status.drops.clear();
    status
}

pub fn halted() -> Status {
    let mut status = status();
    status.ledger.is_final = false;
    status.ledger.halted = Some("the ledger's store failed: No space left on device (os error 28)\u{1b}[2J".into());
    status.peers.clear();
    status
}

pub fn ledger_status() -> LedgerStatus {
    LedgerStatus {
        height: 12,
        hash: HASH.into(),
        epoch: 0,
        role: LedgerRole::Validator,
        validators: 1,
        is_final: true,
        age_seconds: Some(41),
        pending: 0,
        halted: None,
    }
}

pub fn peers() -> Vec<Peer> {
    vec![
        Peer {
            id: B.into(),
            name: "b".into(),
            addresses: ips(&["10.77.0.2", "fd5a:1b2c:3d4e::b0b1"]),
            tags: vec!["web".into()],
            authorization: Authorization::Member,
            seen_seconds: Some(2),
            path: direct(),
            rtt_ms: Some(1.25),
            session: Some(PeerSession { cipher: "aes-256-gcm".into(), post_quantum: true, age_seconds: 61 }),
            tx_bytes: 1_258_291,
            rx_bytes: 910,
        },
        Peer {
            id: C.into(),
            name: "gone-for-good".into(),
            addresses: ips(&["10.77.0.3"]),
            tags: vec![],
            authorization: Authorization::Revoked,
            seen_seconds: None,
            path: PeerPath { kind: PathKind::None, endpoint: None, relay: None },
            rtt_ms: None,
            session: None,
            tx_bytes: 0,
            rx_bytes: 0,
        },
    ]
}

fn direct() -> PeerPath {
    PeerPath { kind: PathKind::Direct, endpoint: Some("10.77.1.2:4647".parse().unwrap()), relay: None }
}

fn relayed() -> PeerPath {
    PeerPath { kind: PathKind::Relay, endpoint: None, relay: Some("berlin".into()) }
}

pub fn ping(probe: u32) -> PingReport {
    let path = if probe < 3 { relayed() } else { direct() };
    let reply = PingReply { seq: 1, rtt_ms: 12.5 / f64::from(probe), path };
    PingReport { peer: "b".into(), replies: vec![reply], sent: 1, received: 1 }
}

fn member() -> Member {
    Member {
        id: B.into(),
        name: "b".into(),
        addresses: ips(&["10.77.0.2", "fd5a:1b2c:3d4e::b0b1"]),
        tags: vec!["web".into(), "prod".into()],
        authorization: Authorization::Member,
        admitted_height: Some(3),
        admitted_by: Some("a".into()),
    }
}

fn members() -> Vec<Member> {
    let pending = Member {
        id: C.into(),
        name: "c".into(),
        addresses: vec![],
        tags: vec![],
        authorization: Authorization::Pending,
        admitted_height: None,
        admitted_by: None,
    };
    vec![member(), pending]
}

fn log() -> Vec<LogEntry> {
    let join = LogEntry {
        height: 3,
        time_ms: TIME * 1000,
        tx: TX.into(),
        author: "a".into(),
        op: "join".into(),
        subject: Some(B.into()),
        subject_name: Some("b".into()),
        detail: "10.77.0.2, tags web, prod".into(),
    };
    let revoke = LogEntry {
        height: 12,
        op: "revoke".into(),
        subject: Some(C.into()),
        subject_name: None,
        detail: "lost\n".into(),
        ..join.clone()
    };
    vec![join, revoke]
}

fn block() -> LedgerItem {
    LedgerItem::Block(BlockView {
        height: 12,
        hash: HASH.into(),
        parent: PARENT.into(),
        epoch: 0,
        time_ms: TIME * 1000,
        proposer: "a".into(),
        state_root: B.into(),
        signatures: 1,
        validators: 1,
        entries: log(),
    })
}

fn transaction() -> LedgerItem {
    LedgerItem::Transaction(TransactionView {
        tx: TX.into(),
        height: None,
        author: "a".into(),
        seq: Some(7),
        witnesses: vec![A.into()],
        entries: log(),
    })
}

pub fn verified(bad: Option<BadBlock>) -> VerifyReport {
    VerifyReport { from: 0, to: 12, blocks: if bad.is_some() { 5 } else { 13 }, bad }
}

fn rules() -> Vec<RuleView> {
    let rule = |number, rule: &str, action, height, signer: &str| RuleView {
        number: Some(number),
        rule: rule.into(),
        action,
        tx: Some(TX.into()),
        height: Some(height),
        signers: vec![signer.into()],
    };
    vec![
        rule(1, "allow * *", Verdict::Allow, 0, "a"),
        rule(4, "deny tag:guest 192.168.7.0/24:22,8000-8100/tcp", Verdict::Deny, 13, "b\u{1b}[2J"),
    ]
}

fn requests() -> Vec<RequestView> {
    let request = |id: &str, member: &str, kind: &str, prefix: Option<&str>, local: Option<&str>| RequestView {
        id: id.into(),
        member: member.into(),
        kind: kind.into(),
        prefix: prefix.map(Into::into),
        local: local.map(Into::into),
        endpoints: vec![],
        tls_port: None,
        made: TIME,
        expires: TIME + 7 * 86_400,
    };
    vec![
        request("0123456789abcdef", "b", "route", Some("172.20.1.0/24"), Some("192.168.1.0/24")),
        request("fedcba9876543210", "c\u{1b}[2J", "exit", None, None),
        RequestView {
            endpoints: ["203.0.113.7:4647", "[2001:db8::7]:4647"].map(|text| text.parse().unwrap()).to_vec(),
            tls_port: Some(443),
            ..request("89abcdef01234567", "b", "relay", None, None)
        },
    ]
}

fn routes() -> Vec<RouteView> {
    let router = |name: &str, local: Option<&str>, in_use, silent| RouterView {
        name: name.into(),
        local: local.map(Into::into),
        in_use,
        silent,
        tx: TX.into(),
        signers: vec!["a".into()],
    };
    let view = |prefix: &str, accepted, routers| RouteView { prefix: prefix.into(), accepted, routers };
    vec![
        view(
            "172.20.1.0/24",
            true,
            vec![router("b", Some("192.168.1.0/24"), false, true), router("c", None, true, false)],
        ),
        view("fd01:2::/48", false, vec![router("b\u{1b}[2J", None, false, false)]),
    ]
}

/// Everything but what is about guests holds.
fn checked(check: &str) -> CheckOutcome {
    CheckOutcome { check: check.into(), verdict: Verdict::Allow, holds: !check.contains("guest") }
}

fn explanation(is_uncovered: bool) -> Explanation {
    let by = rules().swap_remove(1);
    Explanation {
        verdict: Verdict::Deny,
        rule: (!is_uncovered).then_some(by.rule),
        number: by.number.filter(|_| !is_uncovered),
        tx: by.tx.filter(|_| !is_uncovered),
        height: by.height.filter(|_| !is_uncovered),
        signers: if is_uncovered { Vec::new() } else { by.signers },
        reason: "from 10.77.0.2 (b) to 192.168.7.9 (nobody's): a reason".into(),
    }
}

fn names(request: &NameRequest) -> NameReply {
    let entry = |name: &str, record| NameEntry {
        name: name.into(),
        fqdn: Some(if name == "@" { "lab.internal".into() } else { format!("{name}.lab.internal") }),
        record,
        set_by: "a".into(),
        height: 12,
    };
    match request {
        NameRequest::Add(_) | NameRequest::Remove(_) => {
            NameReply::Submitted(Submitted { tx: TX.into(), height: Some(13) })
        }
        NameRequest::List => NameReply::List(vec![
            entry("@", Record::Mx { priority: 10, target: "mail".into() }),
            entry("_imap._tcp.b", Record::Srv { priority: 0, weight: 1, port: 143, target: "b".into() }),
            entry("mail", Record::Address { target: "b".into() }),
            entry("b", Record::Txt { strings: vec!["v=spf1 mx -all".into(), "say \"hello\"".into()] }),
        ]),
        NameRequest::Status => NameReply::Status(DnsStatus {
            enabled: true,
            zone: Some("lab.internal".into()),
            servers: ips(&["10.77.0.53", "fd5a:1b2c:3d4e::53"]),
            reverse_zones: ["0", "1", "2"].map(|octet| format!("{octet}.77.10.in-addr.arpa")).to_vec(),
            ttl_seconds: 30,
            members: 2,
            records: 4,
            host: DnsHost { backend: "auto".into(), used: Some("resolved".into()), reason: None },
            queries: DnsQueries {
                answered: 120,
                unknown_names: 3,
                refused: 1,
                unanswerable: 2,
                ..DnsQueries::default()
            },
        }),
        NameRequest::Query(_) => NameReply::Answer(DnsAnswer {
            name: "b.lab.internal".into(),
            status: "NOERROR".into(),
            answers: vec![DnsRecord {
                name: "b.lab.internal".into(),
                record_type: "MX".into(),
                ttl: 30,
                data: "10 mail.lab.internal.".into(),
            }],
        }),
    }
}

fn link(request: &LinkRequest) -> Reply {
    match request {
        LinkRequest::Segments => Reply::Segments(segments()),
        LinkRequest::Bridges | LinkRequest::RemoveBridge(_) => Reply::Bridges(bridges()),
        LinkRequest::AddBridge(add) => Reply::Bridged(Bridged {
            interface: add.interface.clone(),
            segment: add.segment.clone(),
            bridge: add.finality.wait.then(|| "p2b-lab".into()),
            problem: (!add.finality.wait).then(|| "this node has no device for the segment".into()),
            is_approved: add.finality.wait,
            tx: add.finality.wait.then(|| TX.into()),
            height: add.finality.wait.then_some(13),
        }),
        LinkRequest::SetSegment(_) | LinkRequest::RemoveSegment(_) | LinkRequest::JudgeBridge(_) => {
            Reply::Submitted(Submitted { tx: TX.into(), height: Some(13) })
        }
    }
}

fn segments() -> Vec<SegmentView> {
    let own = SegmentView {
        name: "lab".into(),
        number: 7,
        tag: "lan".into(),
        members: vec!["a".into(), "b".into()],
        gateways: vec!["b".into()],
        bridges: vec!["b".into()],
        storm_limit: 1000,
        is_member: true,
        device: Some("p2t-lab".into()),
        mac: Some("02:00:00:00:00:0a".into()),
        problem: None,
        stations: vec![StationView { mac: "52:54:00:00:00:01".into(), behind: "b".into(), seen_seconds: 4 }],
    };
    let broken = SegmentView {
        name: "attic".into(),
        number: 9,
        device: None,
        problem: Some("the interface p2t-attic exists already\u{1b}[2J".into()),
        stations: vec![],
        gateways: vec![],
        bridges: vec![],
        ..own.clone()
    };
    let other = SegmentView { name: "plant".into(), is_member: false, mac: None, problem: None, ..broken.clone() };
    vec![broken, own, other]
}

fn bridges() -> Vec<BridgeView> {
    let other = BridgeView {
        segment: "lab".into(),
        member: "b".into(),
        is_approved: true,
        interface: None,
        bridge: None,
        problem: None,
    };
    let own = BridgeView {
        member: "a".into(),
        is_approved: false,
        interface: Some("eth1".into()),
        bridge: Some("p2b-lab".into()),
        ..other.clone()
    };
    let late = BridgeView {
        segment: "plant".into(),
        interface: Some("eth2".into()),
        bridge: None,
        problem: Some("there is no interface eth2".into()),
        ..own.clone()
    };
    vec![own, other, late]
}

fn placement(nat: &str) -> PlacementView {
    PlacementView {
        nat: nat.into(),
        reachable: false,
        endpoints: vec!["192.168.1.2:4647".parse().unwrap(), "203.0.113.7:4647".parse().unwrap()],
        relays: vec![RelayView { name: "berlin".into(), rtt_ms: 12.5 }],
    }
}

/// Why a peer is reached through a relay.
fn why() -> WhyReport {
    let direct = |endpoint: &str, state: &str| WayView {
        kind: PathKind::Direct,
        endpoint: Some(endpoint.parse().unwrap()),
        relay: None,
        source: "record".into(),
        state: state.into(),
        heard_seconds: None,
    };
    let relay = WayView {
        kind: PathKind::Relay,
        endpoint: None,
        relay: Some("berlin".into()),
        source: "relay".into(),
        state: "used".into(),
        heard_seconds: Some(3),
    };
    WhyReport {
        peer: "b".into(),
        path: relayed(),
        reason: "through berlin: both NATs choose another port towards each other, which nobody can know".into(),
        mtu: Some(1476),
        advice: vec!["forward a UDP port".into()],
        own: placement("endpoint-dependent"),
        remote: Some(placement("endpoint-dependent")),
        ways: vec![direct("203.0.113.9:4647", "silent"), direct("192.168.1.2:4647", "untried"), relay],
    }
}

/// How a node behind a NAT is placed.
fn net() -> NetReport {
    NetReport {
        own: placement("endpoint-independent"),
        listen: vec!["0.0.0.0:4647".parse().unwrap()],
        udp: true,
        tls: false,
        mapping: MappingView {
            state: "mapped".to_owned(),
            endpoint: Some("203.0.113.7:4647".parse().unwrap()),
            by: Some("NAT-PMP".to_owned()),
            reason: None,
        },
        seen: vec![Sighting { by: "berlin".into(), endpoint: "203.0.113.7:4647".parse().unwrap() }],
        advice: Vec::new(),
    }
}

/// What a relay with one circuit passes on.
fn relaying() -> RelayReport {
    RelayReport {
        mode: "auto".into(),
        relaying: true,
        reachable: true,
        rate: Some(1_250_000),
        member_rate: Some(625_000),
        labels: 2,
        max_labels: 1024,
        circuits: vec![CircuitView { between: ["a".into(), "b".into()], bytes: 5_242_880, idle_seconds: 2 }],
    }
}

/// What the scripted node answers to a request, and nothing else about it.
pub fn reply(request: &Request) -> Reply {
    match request {
        Request::Status => Reply::Status(Box::new(status())),
        Request::Peers => Reply::Peers(peers()),
        Request::Ping(_) => Reply::Ping(ping(1)),
        Request::Ip(_) => Reply::Ip(Addresses { addresses: ips(&["10.77.0.1", "fd5a:1b2c:3d4e::a1b2"]) }),
        Request::Whois(_) => Reply::Whois(member()),
        Request::Wait(wait) => Reply::Waited(Waited { condition: wait.condition.to_string(), height: 12 }),
        Request::Members => Reply::Members(members()),
        Request::Authorize(_)
        | Request::Rename(_)
        | Request::RevokeInvite(_)
        | Request::Tag(_)
        | Request::Advertise(_)
        | Request::Unadvertise(_)
        | Request::Approve(_)
        | Request::Relay(RelayRequest::On(_) | RelayRequest::SetEndpoints(_))
        | Request::LedgerUpgrade(_) => Reply::Submitted(Submitted { tx: TX.into(), height: Some(13) }),
        Request::Reach(ReachRequest::Why(_)) => Reply::Reach(ReachReply::Why(why())),
        Request::Reach(ReachRequest::NetCheck) => Reply::Reach(ReachReply::NetCheck(net())),
        Request::Reach(ReachRequest::Relaying) => Reply::Reach(ReachReply::Relaying(relaying())),
        Request::Relay(RelayRequest::Off(off)) => {
            Reply::Submitted(Submitted { tx: TX.into(), height: off.finality.wait.then_some(13) })
        }
        Request::Revoke(revoke) => {
            Reply::Submitted(Submitted { tx: TX.into(), height: revoke.finality.wait.then_some(13) })
        }
        Request::Invite(invite) if invite.needs_approval => {
            Reply::Invited(Invited { ticket: ticket_text(), credential: None, expires: None, tx: None, height: None })
        }
        Request::Invite(_) => Reply::Invited(Invited {
            ticket: ticket_text(),
            credential: Some(C.into()),
            expires: Some(TIME + 86_400),
            tx: Some(TX.into()),
            height: Some(13),
        }),
        Request::Invites => Reply::Invites(vec![Invite {
            credential: C.into(),
            name: Some("b".into()),
            tags: vec!["web".into()],
            uses_left: 1,
            expires: TIME + 86_400,
            author: "a".into(),
        }]),
        Request::Rules => Reply::Rules(rules()),
        Request::ChangePolicy(change) => Reply::PolicyChanged(PolicyChanged {
            added: rules().into_iter().skip(1).take(change.add.len()).collect(),
            removed: rules().into_iter().take(change.remove.len()).collect(),
            transactions: vec![Submitted { tx: TX.into(), height: change.finality.wait.then_some(13) }],
        }),
        Request::ApplyPolicy(apply) => Reply::PolicyChanged(PolicyChanged {
            added: rules().split_off(1),
            removed: rules()[..1].to_vec(),
            transactions: if apply.dry_run {
                Vec::new()
            } else {
                vec![Submitted { tx: HASH.into(), height: Some(13) }, Submitted { tx: TX.into(), height: Some(14) }]
            },
        }),
        Request::CheckPolicy(order) => {
            Reply::Checked(Checked { checks: order.checks.iter().map(|check| checked(check)).collect() })
        }
        Request::Explain(question) => Reply::Explained(explanation(question.destination.ends_with(":23"))),
        Request::Routes => Reply::Routes(routes()),
        Request::Requests => Reply::Requests(requests()),
        Request::Refuse(_) => Reply::Refused(requests().swap_remove(0)),
        Request::Exits => Reply::Exits(vec![
            ExitView { name: "b".into(), in_use: true, silent: true },
            ExitView { name: "c\u{1b}[2J".into(), in_use: false, silent: false },
        ]),
        Request::Accept(accept) => {
            Reply::Accepted(AcceptedView { all: accept.all, prefixes: accept.prefixes.clone(), exit: Some("b".into()) })
        }
        Request::UseExit(use_exit) => {
            let exit = use_exit.peer.clone();
            Reply::Accepted(AcceptedView { all: false, prefixes: Vec::new(), exit })
        }
        Request::LedgerStatus => Reply::LedgerStatus(ledger_status()),
        Request::LedgerLog(_) => Reply::LedgerLog(log()),
        Request::LedgerShow(show) if show.what == "12" => Reply::LedgerShow(block()),
        Request::LedgerShow(_) => Reply::LedgerShow(transaction()),
        Request::LedgerVerify => Reply::LedgerVerify(verified(None)),
        Request::Name(request) => Reply::Name(names(request)),
        Request::Link(request) => link(request),
        Request::Reload => Reply::Reloaded(Reloaded {
            changed: vec!["node.log_level".into()],
            needs_restart: vec!["tunnel.mtu".into()],
        }),
    }
}
