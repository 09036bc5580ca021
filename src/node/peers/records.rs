//! Records of sessions, out and in: control records end here, those of streams are passed on, packets that waited are sealed.

use super::dormancy::Dormancy;
use super::{Context, PeerEvent, PeerTable, Transmit, rights_of, source_of};
use crate::crypto::exchange::TransportKey;
use crate::crypto::identity::NodeId;
use crate::node::forward::{HEADROOM, TAILROOM, fits_any_link};
use crate::path::candidate::is_private;
use crate::path::{Path, ProbeId, Speech};
use crate::policy::Rights;
use crate::session::{Role, Session};
use crate::time::Now;
use crate::wire::control::ControlMessage;
use crate::wire::datagram::SessionIndex;
use crate::wire::drops::DropReason;
use crate::wire::transport_record::{
    Fragment, Layer, RECORD_CONTROL, RECORD_HEADER_LEN, RECORD_PACKET, RECORD_STREAM, Record,
};
use rand_core::CryptoRng;
use std::sync::Arc;
use std::time::Duration;

/// Whence a record came.
#[derive(Clone, Copy)]
struct Heard {
    key: TransportKey,
    rights: Rights,
    index: SessionIndex,
    path: Path,
}

/// The bytes of a probe's datagram: header, kind, tag, and what it says.
const PROBE_LEN: usize = HEADROOM + TAILROOM + 1 + 8 + 24;

impl PeerTable {
    /// Takes the news that something authentic came in a session: its first packet, or one from an unexpected endpoint.
    pub fn handle_news(&mut self, ctx: &mut Context<'_, impl CryptoRng>, index: SessionIndex, path: Path) {
        self.heard(ctx, (index, path), false, Speech::Using);
    }

    /// Takes an opened record that is not an inner packet.
    pub fn handle_record(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        index: SessionIndex,
        path: Path,
        record: &[u8],
    ) {
        let record = Record::decode(record);
        let said = match record {
            Ok(Record::Control(content)) => ControlMessage::decode(content).ok(),
            _ => None,
        };
        let speech = match said {
            Some(ControlMessage::Pong { .. } | ControlMessage::Probe { is_spare: true, .. }) => Speech::Trying,
            _ => Speech::Using,
        };
        let is_empty = record == Ok(Record::Empty);
        let Some((key, rights)) = self.heard(ctx, (index, path), is_empty, speech) else {
            self.drops.count(DropReason::UnknownSession);
            return;
        };
        match record {
            Ok(Record::Empty) => {}
            Ok(Record::Control(_)) => match said {
                Some(message) => self.handle_control(ctx.now, Heard { key, rights, index, path }, message),
                None => self.drops.count(DropReason::MalformedRecord),
            },
            Ok(Record::Measure(id)) => {
                self.pong(ctx.now, key, path, id);
                self.note_measure(ctx.now.instant, key, path);
            }
            Ok(Record::Stream(packet)) => self.events.push_back(PeerEvent::Stream(key, packet.to_vec())),
            Ok(Record::Packet { .. } | Record::Bundle(..) | Record::Chunk(_) | Record::Fragment(_)) | Err(_) => {
                self.drops.count(DropReason::MalformedRecord);
            }
        }
    }

    fn heard(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        (index, path): (SessionIndex, Path),
        is_empty: bool,
        speech: Speech,
    ) -> Option<(TransportKey, Rights)> {
        let key = *self.owners.get(&index)?;
        let peer = self.peers.get_mut(&key)?;
        let actions = peer.sessions.handle_received(ctx.now.instant, index, is_empty);
        let session = peer.sessions.receiving().find(|session| session.local_index() == index)?;
        let (role, rights) = (session.role(), rights_of(session));
        let is_first = role == Role::Responder && !peer.is_confirmed(index);
        // The source of D3 is what its sender likes; but D3 cannot be made without M2, which one source alone was sent.
        if is_first && self.responder.answered(index) == Some(source_of(&path)) {
            peer.paths.established(ctx.now.instant, path);
            // Whoever is behind the same link, or within the same site, says nothing of who is not.
            let remote = path.remote.ip().to_canonical();
            let is_near = self.around.connected.iter().any(|prefix| prefix.contains(remote))
                || is_private(remote) && !self.around.public.is_empty();
            if peer.came_unasked.take() == Some(index) && !is_near {
                peer.came_from = Some(path.remote);
            }
        } else if let Some(path) = peer.paths.heard_from(ctx.now.instant, path, speech)
            && actions.is_empty()
        {
            self.probe(ctx, key, path);
        }
        // Who came as a guest counts once it is a member.
        if let (Rights::Member(id), Some(peer)) = (rights, self.peers.get_mut(&key))
            && let Some(from) = peer.came_from.take()
        {
            self.events.push_back(PeerEvent::Reached(id, from));
        }
        self.act(ctx, key, &actions);
        self.announce(ctx.now, (key, rights), index);
        self.promote(ctx, key);
        Some((key, rights))
    }

    /// Once a session is confirmed and there is a path, tells of it, and sends what waited for it.
    fn announce(&mut self, now: Now, (key, rights): (TransportKey, Rights), index: SessionIndex) {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.paths.path().is_some()) else { return };
        if peer.confirm(index) {
            self.is_changed = true;
            // A session that was judged before an admission may be confirmed after one that was judged behind it: the peer is what it is in the one in use.
            let rights = peer.sessions.sending().map_or(rights, |session| rights_of(session));
            self.events.push_back(PeerEvent::Up(key, rights));
        }
        self.note_awake(now, key);
        self.flush(now, key);
    }

    fn handle_control(&mut self, now: Now, origin: Heard, message: ControlMessage) {
        let Heard { key, rights, index, path } = origin;
        match message {
            ControlMessage::Probe { id, .. } => self.pong(now, key, path, id),
            ControlMessage::Pong { id, .. } if self.take_measure(now, key, ProbeId(id)) => {}
            ControlMessage::Pong { id, observed } => {
                let Some(peer) = self.peers.get_mut(&key) else { return };
                let before = peer.paths.path();
                let Some(rtt) = peer.paths.handle_pong(now.instant, ProbeId(id)) else { return };
                let path = peer.paths.path();
                self.is_changed |= path != before;
                if path != before {
                    self.events.push_back(PeerEvent::Moved(key));
                }
                self.events.push_back(PeerEvent::Pong(key, ProbeId(id), rtt));
                // Through a relay the peer sees the relay, and over TLS an endpoint of TCP; what leaves by another socket of this host says nothing of
                // where others find it.
                if origin.path.is_direct() && origin.path.spare().is_none() {
                    self.events.push_back(PeerEvent::Observed(key, observed));
                }
                self.announce(now, (key, rights), index);
            }
            // A guest has the control link, which keeps it to its services and its pace.
            ControlMessage::Ledger(_) if rights == Rights::Guest => self.drops.count(DropReason::RecordNotAllowed),
            ControlMessage::Ledger(bytes) => self.events.push_back(PeerEvent::Ledger(key, bytes)),
            ControlMessage::Damaged if rights == Rights::Guest => self.drops.count(DropReason::RecordNotAllowed),
            ControlMessage::Damaged => {
                let path = self.peers.get(&key).and_then(|peer| peer.paths.path());
                self.events.extend(path.map(|path| PeerEvent::Damaged(key, path)));
            }
            ControlMessage::Goodbye => {
                let Some(peer) = self.peers.get_mut(&key) else { return };
                let session = peer.sessions.receiving().find(|session| session.local_index() == index);
                let age = session.map_or(Duration::ZERO, |session| now.instant.saturating_since(session.created()));
                peer.note_goodbye(now.instant, age);
                let actions = peer.sessions.handle_goodbye(index);
                if peer.sessions.is_empty() {
                    peer.paths.forget_current();
                }
                self.retire(key, &actions);
            }
            message @ (ControlMessage::LabelRequest(_)
            | ControlMessage::LabelGranted { .. }
            | ControlMessage::LabelRefused { .. }
            | ControlMessage::LabelOffered { .. }
            | ControlMessage::LabelGone { .. }
            | ControlMessage::Call(_)
            | ControlMessage::EarWanted
            | ControlMessage::Ear { .. }) => match rights.is_member() {
                true => self.events.push_back(PeerEvent::Ways(key, message)),
                false => self.drops.count(DropReason::RecordNotAllowed),
            },
        }
    }

    /// Keeps an inner packet, or a frame, for a member until a session is there, and begins a handshake.
    pub fn stage(&mut self, ctx: &mut Context<'_, impl CryptoRng>, id: NodeId, layer: Layer, packet: Vec<u8>) {
        let Some(key) = ctx.policy.member(&id).map(|member| member.transport_key) else {
            self.drops.count(DropReason::NoRoute);
            return;
        };
        self.entry(key, Some(id));
        let is_on_its_way = self.wake(ctx, key, (layer, &packet));
        let dropped = self.staging.push(ctx.now.instant, key, layer, packet);
        self.drops.add(DropReason::StagingFull, dropped as u64);
        if !is_on_its_way {
            self.flush(ctx.now, key);
        }
        if !is_on_its_way && self.staging.has(&key) {
            self.connect(ctx, key);
        }
    }

    /// Seals what waited for a session.
    pub(super) fn flush(&mut self, now: Now, key: TransportKey) {
        let Some(peer) = self.peers.get(&key).filter(|_| self.staging.has(&key)) else { return };
        let is_member = peer.sessions.sending().is_some_and(|session| rights_of(session).is_member());
        if !is_member || peer.paths.path().is_none() || peer.dormancy != Dormancy::Awake {
            return;
        }
        let (packets, expired) = self.staging.take(now.instant, &key);
        self.drops.add(DropReason::NoPath, expired as u64);
        for (layer, packet) in packets {
            self.send_waiting(now, key, layer, &packet);
        }
    }

    /// Seals what waited: what is too long for some path in parts, because nobody measured this one.
    pub(super) fn send_waiting(&mut self, now: Now, key: TransportKey, layer: Layer, packet: &[u8]) {
        let Some(peer) = self.peers.get(&key) else { return };
        let Some((session, path)) = peer.sessions.sending().map(Arc::clone).zip(peer.paths.path()) else { return };
        if layer != Layer::Ip && !session.offload().frames {
            return self.drops.count(DropReason::FramesNotCarried);
        }
        let whole = [layer.record_header(RECORD_PACKET, 0).as_slice(), packet].concat();
        let room = fits_any_link(&path) + RECORD_HEADER_LEN;
        if whole.len() <= room {
            self.seal_in(now, key, &session, Some(path), &whole);
            return;
        }
        self.fragmented = self.fragmented.wrapping_add(1);
        for part in Fragment::cut(layer, self.fragmented, packet, room - layer.record_header_len()) {
            let (header, fields) = part.encode_header();
            let record = [header.as_slice(), &fields, part.bytes].concat();
            self.seal_in(now, key, &session, Some(path), &record);
        }
    }

    /// Sends a probe over the path in use, or begins a handshake when there is none. Returns the probe's id.
    ///
    /// Who takes this node for a guest would answer and drop all else: it is not reached, and the watch over the session asks it again.
    pub fn ping(&mut self, ctx: &mut Context<'_, impl CryptoRng>, key: TransportKey) -> Option<ProbeId> {
        let peer = self.peers.get(&key).filter(|peer| peer.is_usable());
        match peer.and_then(|peer| Some((peer.paths.path()?, peer.guest_there))) {
            Some((_, true)) => None,
            Some((path, false)) => self.probe(ctx, key, path),
            None => {
                self.connect(ctx, key);
                None
            }
        }
    }

    pub(super) fn probe(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        key: TransportKey,
        path: Path,
    ) -> Option<ProbeId> {
        let session = self.peers.get(&key).and_then(|peer| peer.sessions.sending()).map(Arc::clone)?;
        self.probe_in(ctx, key, &session, path)
    }

    /// Sends a probe by a path, over so many routers at most.
    pub(super) fn probe_over(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        key: TransportKey,
        path: Path,
        hop_limit: Option<u8>,
    ) {
        if self.probe(ctx, key, path).is_some()
            && let Some(last) = self.transmits.back_mut()
        {
            last.hop_limit = hop_limit;
        }
    }

    /// Sends a probe in one session.
    pub(super) fn probe_in(
        &mut self,
        ctx: &mut Context<'_, impl CryptoRng>,
        key: TransportKey,
        session: &Arc<Session>,
        path: Path,
    ) -> Option<ProbeId> {
        let id = ProbeId(ctx.rng.next_u64());
        let paths = &mut self.peers.get_mut(&key)?.paths;
        if path.is_direct() && !paths.candidates_mut().spend(ctx.now.instant, path.remote, PROBE_LEN) {
            self.drops.count(DropReason::RateLimited);
            return None;
        }
        let is_spare = paths.path().is_some_and(|used| used != path);
        self.note_contact(ctx.now.instant, &path, false);
        let record = [&[RECORD_CONTROL], &ControlMessage::probe(id.0, is_spare).encode()[..]].concat();
        if !self.seal_in(ctx.now, key, session, Some(path), &record) {
            return None;
        }
        self.peers.get_mut(&key)?.paths.probe_sent(ctx.now.instant, id, path);
        Some(id)
    }

    /// Sends a ledger message in a control record. Returns whether a session was there.
    pub fn send_ledger(&mut self, now: Now, key: TransportKey, message: Vec<u8>) -> bool {
        self.send(now, key, RECORD_CONTROL, &ControlMessage::Ledger(message).encode())
    }

    /// Sends a packet of the control link, which asks for an answer or is one. Returns whether a session was there.
    pub fn send_stream(&mut self, now: Now, key: TransportKey, packet: &[u8], asks_for_answer: bool) -> bool {
        let is_sent = self.send(now, key, RECORD_STREAM, packet);
        let Some(peer) = self.peers.get_mut(&key).filter(|_| is_sent && !asks_for_answer) else { return is_sent };
        // While a user's packets pass, what is owed for those is not settled by it, and a look at the path more often is welcome.
        if !peer.traffic().is_in_use(now.instant) {
            peer.paths.answered(now.instant);
        }
        is_sent
    }

    /// Says goodbye to everybody, at the end of the daemon.
    pub fn say_goodbye(&mut self, now: Now) {
        for key in self.peers.keys() {
            self.send(now, key, RECORD_CONTROL, &ControlMessage::Goodbye.encode());
        }
    }

    pub(super) fn send(&mut self, now: Now, key: TransportKey, kind: u8, content: &[u8]) -> bool {
        let Some(path) = self.peers.get(&key).and_then(|peer| peer.paths.path()) else { return false };
        self.seal_to(now, key, path, kind, content)
    }

    pub(super) fn seal_to(&mut self, now: Now, key: TransportKey, path: Path, kind: u8, content: &[u8]) -> bool {
        let Some(session) = self.peers.get(&key).and_then(|peer| peer.sessions.sending()).map(Arc::clone) else {
            return false;
        };
        let record = [&[kind], content].concat();
        self.seal_in(now, key, &session, Some(path), &record)
    }

    /// Seals a record in one session and queues it for `path`, or for the one in use.
    pub(super) fn seal_in(
        &mut self,
        now: Now,
        key: TransportKey,
        session: &Arc<Session>,
        path: Option<Path>,
        record: &[u8],
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let Some(path) = path.or(peer.paths.path()) else { return false };
        let Some(sealer) = peer.sealer(session) else {
            self.drops.count(DropReason::CounterExhausted);
            return false;
        };
        let mut datagram = vec![0; HEADROOM - 1 + record.len() + TAILROOM];
        datagram[HEADROOM - 1..HEADROOM - 1 + record.len()].copy_from_slice(record);
        match sealer.seal(now.instant, &mut datagram) {
            Ok(_) => {
                self.transmits.push_back(Transmit::new(path, datagram));
                true
            }
            Err(error) => {
                self.drops.count(error.into());
                false
            }
        }
    }
}
