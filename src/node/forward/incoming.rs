//! Packet in: from a datagram to a packet for the device.

use super::paid::{Paid, Trust};
use crate::node::control::CONTROL_MTU;
use crate::node::table::{ForwardingTable, Inlet};
use crate::path::Path;
use crate::policy::Rights;
use crate::router::segment::{Run, SuperPacket};
use crate::session::Source;
use crate::time::Instant;
use crate::wire::control::MAX_CONTROL_LEN;
use crate::wire::data::{self, Chunk, Datagram, DatagramError, RECORD_HEADER_LEN, Record, SessionIndex};
use crate::wire::drops::DropReason;
use crate::wire::inner::InnerPacket;
use crate::wire::offload::{PlainHeaders, VnetHeader};
use std::collections::HashMap;
use std::time::Duration;

/// How often one session's liveness is reported at most: a flood of packets from a new address is one report.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// What becomes of a datagram that a socket gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound<'d> {
    /// Write the inner packet into the device.
    Deliver(VnetHeader, &'d [u8]),
    /// Put these segments of a super-packet to those before them, by [`Runs::take`].
    Chunk(SessionIndex, Chunk<'d>),
    /// Hand the opened record of this session to the node: control, stream, or the empty record; a kilobyte at most.
    Record(SessionIndex, &'d [u8]),
    /// Hand the datagram to the node: handshake and cookies, past the gate.
    Handshake(Trust, &'d [u8]),
    /// Drop it.
    Drop(DropReason),
}

/// One receiving thread's own state: what it reported lately, and whose initiations were paid for.
#[derive(Default)]
pub struct Incoming {
    reported: HashMap<SessionIndex, (Path, Instant)>,
    paid: Paid,
    generation: u64,
}
impl Incoming {
    /// Starts with nothing reported.
    pub fn new() -> Self {
        Self::default()
    }

    fn follow(&mut self, table: &ForwardingTable) {
        if self.generation != table.generation {
            self.generation = table.generation;
            self.reported.retain(|index, _| table.inlets.contains_key(index));
        }
    }

    /// Says whether the node should hear that something of this session came by `path`, and notes it.
    fn is_news(&mut self, now: Instant, inlet: &Inlet, path: Path) -> bool {
        if !inlet.awaited && inlet.path == Some(path) {
            return false;
        }
        let index = inlet.session.local_index();
        let known = self
            .reported
            .get(&index)
            .is_some_and(|(reported, at)| *reported == path && now.saturating_since(*at) < REPORT_INTERVAL);
        if !known {
            self.reported.insert(index, (path, now));
        }
        !known
    }
}

/// Opens a datagram in place that came by `path`. `news` says the index of a session whose peer turned out to be alive or elsewhere.
pub fn open<'d>(
    table: &ForwardingTable,
    incoming: &mut Incoming,
    now: Instant,
    path: Path,
    datagram: &'d mut [u8],
) -> (Inbound<'d>, Option<SessionIndex>) {
    incoming.follow(table);
    let header = match Datagram::classify(datagram) {
        Ok(Datagram::Transport(header)) => header,
        Ok(Datagram::Relayed(_)) | Err(DatagramError::UnknownType(_)) => {
            return (Inbound::Drop(DropReason::UnknownType), None);
        }
        Ok(_) => {
            return match table.gate.check(Source::Endpoint(path.remote), datagram) {
                Ok(knock) => (Inbound::Handshake(incoming.paid.trust(path.remote, knock), datagram), None),
                Err(refusal) => (Inbound::Drop(refusal.into()), None),
            };
        }
        Err(_) => return (Inbound::Drop(DropReason::MalformedDatagram), None),
    };
    let Some(inlet) = table.inlets.get(&header.receiver) else {
        return (Inbound::Drop(DropReason::UnknownSession), None);
    };
    let plaintext = match inlet.session.open(now, &header, &mut datagram[data::TRANSPORT_HEADER_LEN..]) {
        Ok(plaintext) => plaintext,
        Err(error) => return (Inbound::Drop(error.into()), None),
    };
    let news = incoming.is_news(now, inlet, path).then_some(header.receiver);
    let inbound = if let Ok(Record::Packet { needs_checksum, .. }) = Record::decode(plaintext) {
        admit(table, inlet, &mut plaintext[RECORD_HEADER_LEN..], needs_checksum)
    } else {
        match Record::decode(plaintext) {
            Ok(Record::Chunk(chunk)) => Inbound::Chunk(header.receiver, chunk),
            Ok(record) if is_for_node(&record) => Inbound::Record(header.receiver, plaintext),
            Ok(_) | Err(_) => Inbound::Drop(DropReason::MalformedRecord),
        }
    };
    (inbound, news)
}

/// Says whether the node takes such a record. What waits for it is bounded in records, so each has a bound.
fn is_for_node(record: &Record<'_>) -> bool {
    match record {
        Record::Empty => true,
        Record::Control(content) => content.len() <= MAX_CONTROL_LEN,
        Record::Stream(packet) => packet.len() <= CONTROL_MTU,
        Record::Packet { .. } | Record::Chunk(_) => false,
    }
}

/// Lets an inner packet through only from a member, from that member's own address, to this node. Where its checksum is left to do, the
/// kernel is told so in one's own words.
fn admit<'d>(table: &ForwardingTable, inlet: &Inlet, packet: &'d mut [u8], needs_checksum: bool) -> Inbound<'d> {
    if let Err(reason) = check(table, inlet, packet) {
        return Inbound::Drop(reason);
    }
    let mut vnet = VnetHeader::default();
    if needs_checksum {
        let Some(plain) = PlainHeaders::parse(packet) else { return Inbound::Drop(DropReason::MalformedPacket) };
        let (headers, payload) = packet.split_at_mut(plain.header_len());
        plain.set_payload_len(headers, payload.len());
        vnet.checksum = Some(plain.checksum());
    }
    Inbound::Deliver(vnet, packet)
}

fn check(table: &ForwardingTable, inlet: &Inlet, packet: &[u8]) -> Result<(), DropReason> {
    let Rights::Member(peer) = inlet.rights else { return Err(DropReason::RecordNotAllowed) };
    let inner = InnerPacket::parse(packet).map_err(|_| DropReason::MalformedPacket)?;
    table.router.inbound(peer, &inner)
}

/// The chunks of one batch, put together as far as they go on from each other.
#[derive(Default)]
pub struct Runs<'d>(Option<Run<'d>>);

impl<'d> Runs<'d> {
    /// Takes a chunk. Returns the packet that came before it, when it does not go on there, and why it is dropped, if it is.
    pub fn take(
        &mut self,
        table: &ForwardingTable,
        index: SessionIndex,
        chunk: &Chunk<'d>,
    ) -> (Option<SuperPacket<'d>>, Option<DropReason>) {
        if self.0.as_mut().is_some_and(|run| run.take(index, chunk)) {
            return (None, None);
        }
        let before = self.end();
        let Some(inlet) = table.inlets.get(&index) else { return (before, Some(DropReason::UnknownSession)) };
        let Some(mut run) = Run::begin(index, chunk) else { return (before, Some(DropReason::MalformedRecord)) };
        if let Err(reason) = check(table, inlet, run.headers()) {
            return (before, Some(reason));
        }
        self.0 = Some(run);
        (before, None)
    }

    /// Ends the run under way: what follows is something else, or nothing.
    pub fn end(&mut self) -> Option<SuperPacket<'d>> {
        self.0.take().map(Run::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::forward::testing::{NOW, with_peer};
    use crate::node::forward::{HEADROOM, TAILROOM};
    use crate::session::testing::established_pair;
    use crate::wire::data::{Lane, RECORD_CONTROL, RECORD_STREAM};
    use std::net::SocketAddr;

    #[test]
    fn a_record_for_the_node_that_is_longer_than_any_honest_one_is_dropped() {
        let (.., near, far) = established_pair();
        let path = Path::from(SocketAddr::from(([192, 0, 2, 2], 4647)));
        let (table, mut incoming) = (with_peer(near.session, path.remote), Incoming::new());
        let mut sealer = far.session.claim_lane(Lane::NODE).unwrap();
        for (kind, longest) in [(RECORD_STREAM, CONTROL_MTU), (RECORD_CONTROL, MAX_CONTROL_LEN)] {
            for (len, is_taken) in [(longest, true), (longest + 1, false), (2_000, false), (60_000, false)] {
                let mut datagram = vec![0; HEADROOM + len + TAILROOM];
                datagram[HEADROOM - 1] = kind;
                sealer.seal(NOW, &mut datagram).unwrap();
                let (inbound, _) = open(&table, &mut incoming, NOW, path, &mut datagram);
                match inbound {
                    Inbound::Record(_, record) => assert!(is_taken && record.len() == len + 1, "{kind}: {len}"),
                    other => assert!(!is_taken && other == Inbound::Drop(DropReason::MalformedRecord), "{kind}: {len}"),
                }
            }
        }
    }
}
