//! The node's keys, and those that come from the network's secret: mac1, cookie and psk.

use crate::crypto::exchange::{TransportKey, TransportSecret};
use crate::crypto::hash::{Digest, blake2s, blake2s_mac, domain_hash};
use crate::crypto::identity::NodeId;
use crate::crypto::secret::{Secret, constant_time_eq};
use crate::wire::handshake::MAC_LEN;
use std::sync::Arc;

/// What a node holds for handshakes. Zeroized on drop; neither `Clone` nor `Debug`.
///
/// What depends on a static key is derived when the key is taken: a stranger's datagram costs its authenticator and nothing else.
pub struct LocalKeys {
    /// The node's identity.
    pub node_id: NodeId,
    /// The genesis block's id.
    pub network_id: Digest,
    network_secret: Secret<32>,
    psk: Secret<32>,
    current: StaticKey,
    retired: Option<StaticKey>,
}

/// A static key, and what guards the datagrams that were made for it.
pub(super) struct StaticKey {
    pub(super) secret: TransportSecret,
    pub(super) network: Arc<NetworkKeys>,
}

impl StaticKey {
    fn new(secret: TransportSecret, network_secret: &Secret<32>) -> Self {
        let network = Arc::new(NetworkKeys::new(&secret.public_key(), network_secret));
        Self { secret, network }
    }
}

impl LocalKeys {
    /// Takes the static key, the node's identity, the genesis block's id, and the network's secret from the ticket. No right depends on
    /// the secret.
    pub fn new(transport: TransportSecret, node_id: NodeId, network_id: Digest, network_secret: Secret<32>) -> Self {
        let psk = Secret::new(blake2s(&[b"psk", network_secret.expose()]));
        let current = StaticKey::new(transport, &network_secret);
        Self { node_id, network_id, network_secret, psk, current, retired: None }
    }

    /// Takes a new static key. The one before goes on answering, for sync only, until [`LocalKeys::forget_retired`].
    pub fn rotate(&mut self, transport: TransportSecret) {
        let rotated = StaticKey::new(transport, &self.network_secret);
        self.retired = Some(std::mem::replace(&mut self.current, rotated));
    }

    /// Wipes the static key before the last rotation: after 30 days, or at once after a compromise.
    pub fn forget_retired(&mut self) {
        self.retired = None;
    }

    /// Hashes what only members can hash: `parts` behind the network's secret, under a domain.
    pub fn network_hash(&self, domain: &'static str, parts: &[&[u8]]) -> Digest {
        let parts: Vec<&[u8]> =
            std::iter::once(self.network_secret.expose().as_slice()).chain(parts.iter().copied()).collect();
        domain_hash(domain, &parts)
    }

    /// Returns the public half of the static key.
    pub fn transport_key(&self) -> TransportKey {
        self.current.secret.public_key()
    }

    /// Lends the network's secret, for a ticket.
    pub fn network_secret(&self) -> &Secret<32> {
        &self.network_secret
    }

    /// Derives the keys that guard datagrams for the holder of `receiver`.
    pub fn network_keys(&self, receiver: &TransportKey) -> NetworkKeys {
        NetworkKeys::new(receiver, &self.network_secret)
    }

    /// Lends the static key.
    pub(super) fn current(&self) -> &StaticKey {
        &self.current
    }

    /// Lends the static key before the last rotation, while it still answers.
    pub(super) fn retired(&self) -> Option<&StaticKey> {
        self.retired.as_ref()
    }

    /// Lends the psk of the handshake.
    pub(super) fn psk(&self) -> &Secret<32> {
        &self.psk
    }
}

/// What anybody can derive who knows a receiver's static key and the network's secret.
pub struct NetworkKeys {
    mac1: Secret<32>,
    /// Seals cookies.
    pub(super) cookie: Secret<32>,
}

impl NetworkKeys {
    fn new(receiver: &TransportKey, network_secret: &Secret<32>) -> Self {
        let derive = |purpose: &[u8]| Secret::new(blake2s(&[purpose, &receiver.0, network_secret.expose()]));
        Self { mac1: derive(b"mac1"), cookie: derive(b"cookie") }
    }

    /// Makes mac1 over everything before it.
    pub fn mac1(&self, covered: &[u8]) -> [u8; MAC_LEN] {
        blake2s_mac(self.mac1.expose(), covered)
    }

    /// Checks mac1 in constant time.
    pub fn mac1_is_valid(&self, covered: &[u8], mac1: &[u8; MAC_LEN]) -> bool {
        constant_time_eq(&self.mac1(covered), mac1)
    }
}
