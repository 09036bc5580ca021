//! Members without a daemon: the library's own handshake and seal over a real socket, for what no honest daemon does.

use crate::lab::Host;
use crate::node::Node;
use p2plus::crypto::exchange::{TransportKey, TransportSecret};
use p2plus::crypto::hash::Digest;
use p2plus::crypto::identity::{NodeId, SigningKey};
use p2plus::crypto::secret::Secret;
use p2plus::io::clock::{self, OsRng};
use p2plus::io::key_file::{KeyKind, read_key};
use p2plus::node::forward::{HEADROOM, TAILROOM};
use p2plus::policy::Policy;
use p2plus::session::{
    Aim, Established, Indices, Initiator, InitiatorStep, LaneSealer, Local, LocalKeys, Source, Terms, TimestampSource,
};
use p2plus::wire::datagram::{Datagram, Lane};
use p2plus::wire::transport_record::{RECORD_HEADER_LEN, RECORD_PACKET};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// A member that a signer authorized.
pub struct Caller {
    pub name: String,
    keys: LocalKeys,
}

/// A session that a caller has with a daemon.
pub struct Line {
    socket: UdpSocket,
    target: SocketAddr,
    sealer: LaneSealer,
}

/// The transport key of a node, from its files.
pub fn transport_key(node: &Node) -> TransportKey {
    TransportSecret::from_bytes(*read_key(&node.state(), KeyKind::Transport).unwrap().expose()).public_key()
}

/// The keys that somebody with this transport secret has in `node`'s network.
pub fn keys(node: &Node, transport: [u8; 32]) -> LocalKeys {
    let network_id = hex::decode(node.status()["network"]["id"].as_str().unwrap()).unwrap();
    let network_id = Digest(network_id.try_into().unwrap());
    let network_secret = Secret::new(*read_key(&node.state(), KeyKind::NetworkSecret).unwrap().expose());
    LocalKeys::new(TransportSecret::from_bytes(transport), NodeId([0; 32]), network_id, network_secret)
}

impl Caller {
    /// Lets the founder admit a member whose keys follow from `number`.
    pub fn admit(founder: &Node, number: usize) -> Self {
        Self::admit_with(founder, number, &[])
    }

    /// The same with these options of `authorize`.
    pub fn admit_with(founder: &Node, number: usize, options: &[&str]) -> Self {
        let seed = |what: u8| {
            let mut seed = [what; 32];
            // Not in front: X25519 ignores the lowest bits of a secret.
            seed[8..16].copy_from_slice(&number.to_le_bytes());
            seed
        };
        let id = SigningKey::from_seed(&seed(1)).node_id();
        let node_key = hex::encode(SigningKey::from_seed(&seed(2)).verifying_key().0);
        let mut keys = keys(founder, seed(3));
        keys.node_id = id;
        let transport_key = hex::encode(keys.transport_key().0);
        let (id, name) = (id.to_string(), format!("caller-{number}"));
        let words = ["authorize", &id, "--name", &name, "--node-key", &node_key, "--transport-key", &transport_key];
        founder.ask(&[&words, options].concat());
        Self { name, keys }
    }

    /// Its identity.
    pub fn id(&self) -> NodeId {
        self.keys.node_id
    }

    /// Its overlay address of one family.
    pub fn overlay(&self, founder: &Node, is_v4: bool) -> IpAddr {
        let data = founder.ask(&["ip", &self.name]);
        let mut addresses =
            data["addresses"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().parse().unwrap());
        addresses.find(|address: &IpAddr| address.is_ipv4() == is_v4).unwrap()
    }

    /// Handshakes from a port of its own as an initiator does, until the session is there or the attempt is given up.
    pub fn call(&self, host: &Host, target: SocketAddr, key: TransportKey) -> Option<Line> {
        let socket = host.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (terms, policy, source) = (Terms::default(), Policy::default(), Source::Endpoint(target));
        let local = Local { keys: &self.keys, policy: &policy, terms: &terms };
        let offer = terms.offer(TimestampSource::default().next(clock::now().wall));
        let index = Indices::default().reserve(&mut OsRng).unwrap();
        let aim = Aim { key, identity: None };
        let mut initiator = Initiator::new(clock::now().instant, &self.keys, aim, offer, index, &mut OsRng).unwrap();
        let fire = |initiator: &Initiator| {
            initiator.datagrams(source).iter().for_each(|datagram| drop(socket.send_to(datagram, target)));
        };
        fire(&initiator);
        let mut buffer = [0; 2_000];
        loop {
            match initiator.handle_timeout(clock::now().instant) {
                InitiatorStep::GaveUp => return None,
                InitiatorStep::Retransmit => fire(&initiator),
                InitiatorStep::Wait => {}
            }
            let Ok((len, _)) = socket.recv_from(&mut buffer) else { continue };
            match Datagram::classify(&buffer[..len]) {
                Ok(Datagram::Cookie(_, cookie)) if initiator.handle_cookie(source, cookie).is_ok() => {
                    fire(&initiator);
                }
                Ok(Datagram::Response(_, response)) => {
                    if let Ok(Some(Established { session, .. })) =
                        initiator.handle_response(local, clock::now().instant, response)
                    {
                        let sealer = session.claim_lane(Lane::new(1, 0)).unwrap();
                        return Some(Line { socket, target, sealer });
                    }
                }
                _ => {}
            }
        }
    }
}

impl Line {
    /// Sends an inner packet, whatever it says.
    pub fn send(&mut self, packet: &[u8]) {
        self.send_record(&[&[RECORD_PACKET], packet].concat());
    }

    /// Sends a record, whatever it says.
    pub fn send_record(&mut self, record: &[u8]) {
        let front = HEADROOM - RECORD_HEADER_LEN;
        let mut datagram = vec![0; front + record.len() + TAILROOM];
        datagram[front..front + record.len()].copy_from_slice(record);
        self.sealer.seal(clock::now().instant, &mut datagram).unwrap();
        self.socket.send_to(&datagram, self.target).unwrap();
    }
}
