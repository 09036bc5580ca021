//! The node's keys, and those that come from the network's secret: mac1, cookie and psk.

use crate::crypto::exchange::{TransportKey, TransportSecret};
use crate::crypto::hash::{Digest, blake2s, blake2s_mac};
use crate::crypto::identity::NodeId;
use crate::crypto::secret::{Secret, constant_time_eq};
use crate::wire::handshake::MAC_LEN;

/// What a node holds for handshakes. Zeroized on drop; neither `Clone` nor `Debug`.
pub struct LocalKeys {
    /// The static key.
    pub transport: TransportSecret,
    /// The static key before the last rotation, while it still answers: 30 days, sync only; none after a compromise.
    pub retired: Option<TransportSecret>,
    /// The node's identity.
    pub node_id: NodeId,
    /// The genesis block's id.
    pub network_id: Digest,
    /// The network's secret, from the ticket. No right depends on it.
    pub network_secret: Secret<32>,
}

impl LocalKeys {
    /// Derives the keys that guard datagrams for the holder of `receiver`.
    pub fn network_keys(&self, receiver: &TransportKey) -> NetworkKeys {
        let secret = self.network_secret.expose();
        NetworkKeys {
            mac1: Secret::new(blake2s(&[b"mac1", &receiver.0, secret])),
            cookie: Secret::new(blake2s(&[b"cookie", &receiver.0, secret])),
        }
    }

    /// Derives the psk of the handshake.
    pub(super) fn psk(&self) -> Secret<32> {
        Secret::new(blake2s(&[b"psk", self.network_secret.expose()]))
    }
}

/// What anybody can derive who knows a receiver's static key and the network's secret.
pub struct NetworkKeys {
    mac1: Secret<32>,
    /// Seals cookies.
    pub(super) cookie: Secret<32>,
}

impl NetworkKeys {
    /// Makes mac1 over everything before it.
    pub fn mac1(&self, covered: &[u8]) -> [u8; MAC_LEN] {
        blake2s_mac(self.mac1.expose(), covered)
    }

    /// Checks mac1 in constant time.
    pub fn mac1_is_valid(&self, covered: &[u8], mac1: &[u8; MAC_LEN]) -> bool {
        constant_time_eq(&self.mac1(covered), mac1)
    }
}
