//! Cookies: proof that an initiator receives at the address it sends from, kept in no table.
//!
//! As in WireGuard §5.4.7: a cookie is a keyed hash of the source under a secret that rotates; mac2 is a keyed hash of the datagram under the
//! cookie. The reply is sealed with the initiation's mac1 as associated data, so that nobody off the path forges one.

use crate::crypto::aead::{OpenError, TAG_LEN, open_cookie, seal_cookie};
use crate::crypto::hash::blake2s_mac;
use crate::crypto::secret::{Secret, constant_time_eq};
use crate::time::Instant;
use crate::wire::datagram::SessionIndex;
use crate::wire::handshake::{CookieReply, MAC_LEN};
use rand_core::CryptoRng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long a secret makes cookies. Its cookies are accepted as long again.
pub const SECRET_LIFETIME: Duration = Duration::from_secs(120);

/// Where a handshake datagram came from, or goes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// A socket address.
    Endpoint(SocketAddr),
    /// The TCP address at the other end of a link over TLS.
    Stream(SocketAddr),
    /// A label of a relay: a source of its own, because many peers share the relay's address.
    Relayed {
        /// The relay's socket address.
        relay: SocketAddr,
        /// The label.
        label: u32,
    },
}

/// Whose datagrams count together: as many addresses as one host has for nothing, and a relay's label by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// An IPv4 address with all its ports.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address: a network of one's own, as every host has one (RFC 6177).
    V6([u8; 8]),
    /// A label of a relay.
    Relayed {
        /// The relay's socket address.
        relay: SocketAddr,
        /// The label.
        label: u32,
    },
}

impl Source {
    /// Returns what the source counts as: neither another port nor another address of the same host is another origin.
    pub fn origin(self) -> Origin {
        match self {
            Self::Endpoint(endpoint) | Self::Stream(endpoint) => match endpoint.ip().to_canonical() {
                IpAddr::V4(ip) => Origin::V4(ip),
                IpAddr::V6(ip) => {
                    let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                    Origin::V6([a, b, c, d, e, f, g, h])
                }
            },
            Self::Relayed { relay, label } => Origin::Relayed { relay, label },
        }
    }

    /// Returns the bytes that a cookie is bound to: `kind u8 | ip 16 | port u16 | label u32`. IPv4 and IPv4-mapped IPv6 are one.
    fn to_bytes(self) -> [u8; 23] {
        let (kind, endpoint, label) = match self {
            Self::Endpoint(endpoint) => (0, endpoint, 0),
            Self::Relayed { relay, label } => (1, relay, label),
            Self::Stream(endpoint) => (2, endpoint, 0),
        };
        let ip = match endpoint.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [kind; 23];
        bytes[1..17].copy_from_slice(&ip.octets());
        bytes[17..19].copy_from_slice(&endpoint.port().to_le_bytes());
        bytes[19..].copy_from_slice(&label.to_le_bytes());
        bytes
    }
}

/// A cookie's 16 bytes.
pub(super) type Cookie = [u8; MAC_LEN];

/// Makes and checks cookies at the responder.
pub(super) struct CookieSecrets {
    current: Arc<Secret<32>>,
    previous: Option<Arc<Secret<32>>>,
    rotates_at: Instant,
}

impl CookieSecrets {
    pub(super) fn new(now: Instant, rng: &mut impl CryptoRng) -> Self {
        Self { current: Arc::new(Secret::random(rng)), previous: None, rotates_at: now + SECRET_LIFETIME }
    }

    /// Draws a new secret when the current one is old enough. Says whether it did.
    pub(super) fn rotate(&mut self, now: Instant, rng: &mut impl CryptoRng) -> bool {
        if now < self.rotates_at {
            return false;
        }
        let retired = std::mem::replace(&mut self.current, Arc::new(Secret::random(rng)));
        // After a pause of two lifetimes the retired secret is too old for anything.
        self.previous = (now < self.rotates_at + SECRET_LIFETIME).then_some(retired);
        self.rotates_at = now + SECRET_LIFETIME;
        true
    }

    /// The secrets whose cookies are accepted.
    pub(super) fn accepted(&self) -> Vec<Arc<Secret<32>>> {
        std::iter::once(&self.current).chain(&self.previous).cloned().collect()
    }

    /// Says whether `mac2` was made over `covered` with a cookie for `source`.
    pub(super) fn mac2_is_valid(&self, source: Source, covered: &[u8], mac2: &[u8; MAC_LEN]) -> bool {
        std::iter::once(&self.current).chain(&self.previous).any(|secret| mac2_matches(secret, source, covered, mac2))
    }

    /// Makes the answer to an initiation: its index and mac1 are given.
    pub(super) fn reply(
        &self,
        key: &Secret<32>,
        source: Source,
        receiver: SessionIndex,
        mac1: &[u8; MAC_LEN],
        rng: &mut impl CryptoRng,
    ) -> CookieReply {
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let mut sealed_cookie = [0; MAC_LEN + TAG_LEN];
        let (text, tag) = sealed_cookie.split_at_mut(MAC_LEN);
        text.copy_from_slice(&cookie(&self.current, source));
        tag.copy_from_slice(&seal_cookie(key.expose(), &nonce, mac1, text));
        CookieReply { receiver, nonce, sealed_cookie }
    }
}

/// Opens a cookie at the initiator that sent `mac1`.
pub(super) fn open_reply(reply: &CookieReply, key: &Secret<32>, mac1: &[u8; MAC_LEN]) -> Result<Cookie, OpenError> {
    let mut sealed = reply.sealed_cookie;
    let (text, tag) = sealed.split_last_chunk_mut().ok_or(OpenError)?;
    open_cookie(key.expose(), &reply.nonce, mac1, text, tag)?;
    (&*text).try_into().map_err(|_| OpenError)
}

/// Makes mac2 over everything before it.
pub(super) fn mac2_of(cookie: &Cookie, covered: &[u8]) -> [u8; MAC_LEN] {
    let mut key = [0; 32];
    key[..MAC_LEN].copy_from_slice(cookie);
    blake2s_mac(&key, covered)
}

/// Says whether `mac2` was made over `covered` with the cookie of `source` under this secret.
pub(super) fn mac2_matches(secret: &Secret<32>, source: Source, covered: &[u8], mac2: &[u8; MAC_LEN]) -> bool {
    constant_time_eq(&mac2_of(&cookie(secret, source), covered), mac2)
}

fn cookie(secret: &Secret<32>, source: Source) -> Cookie {
    blake2s_mac(secret.expose(), &source.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn endpoint(port: u16) -> Source {
        Source::Endpoint(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    #[test]
    fn a_cookie_serves_its_source_until_its_secret_was_replaced_twice() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut secrets = CookieSecrets::new(Instant::ZERO, &mut rng);
        let (key, mac1) = (Secret::new([1; 32]), [2; 16]);
        let reply = secrets.reply(&key, endpoint(5), SessionIndex(7), &mac1, &mut rng);
        let mac2 = mac2_of(&open_reply(&reply, &key, &mac1).unwrap(), b"datagram");
        assert!(secrets.mac2_is_valid(endpoint(5), b"datagram", &mac2));
        assert!(!secrets.mac2_is_valid(endpoint(6), b"datagram", &mac2));
        assert!(!secrets.mac2_is_valid(endpoint(5), b"telegram", &mac2));
        secrets.rotate(Instant::ZERO + SECRET_LIFETIME, &mut rng);
        assert!(secrets.mac2_is_valid(endpoint(5), b"datagram", &mac2));
        secrets.rotate(Instant::ZERO + SECRET_LIFETIME * 2, &mut rng);
        assert!(!secrets.mac2_is_valid(endpoint(5), b"datagram", &mac2));
    }

    #[test]
    fn a_secret_of_a_long_pause_is_not_kept() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut secrets = CookieSecrets::new(Instant::ZERO, &mut rng);
        let mac2 = mac2_of(&cookie(&secrets.current, endpoint(5)), b"datagram");
        secrets.rotate(Instant::ZERO + SECRET_LIFETIME * 2, &mut rng);
        assert!(!secrets.mac2_is_valid(endpoint(5), b"datagram", &mac2));
    }

    #[test]
    fn neither_a_port_nor_an_address_of_the_same_network_is_another_origin() {
        let origin = |endpoint: &str| Source::Endpoint(endpoint.parse().unwrap()).origin();
        assert_eq!(origin("192.0.2.1:5"), origin("192.0.2.1:6"));
        assert_eq!(origin("192.0.2.1:5"), origin("[::ffff:192.0.2.1]:6"));
        assert_ne!(origin("192.0.2.1:5"), origin("192.0.2.2:5"));
        assert_eq!(origin("[2001:db8:0:1::1]:5"), origin("[2001:db8:0:1:ffff::2]:6"));
        assert_ne!(origin("[2001:db8:0:1::1]:5"), origin("[2001:db8:0:2::1]:5"));
        assert_ne!(origin("[::1]:5"), origin("[::ffff:0.0.0.1]:5"));
        let relay = SocketAddr::from(([192, 0, 2, 1], 5));
        let relayed = |label| Source::Relayed { relay, label }.origin();
        assert!(relayed(1) != relayed(2) && relayed(1) != origin("192.0.2.1:5"));
    }

    #[test]
    fn a_cookie_belongs_to_one_initiation_and_one_kind_of_source() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let secrets = CookieSecrets::new(Instant::ZERO, &mut rng);
        let key = Secret::new([1; 32]);
        let reply = secrets.reply(&key, endpoint(5), SessionIndex(7), &[2; 16], &mut rng);
        assert_eq!(open_reply(&reply, &key, &[3; 16]), Err(OpenError));
        let Source::Endpoint(address) = endpoint(5) else { unreachable!() };
        let relayed = |label| Source::Relayed { relay: address, label }.to_bytes();
        assert!(endpoint(5).to_bytes() != relayed(0) && relayed(0) != relayed(1));
        let mapped = Source::Endpoint("[::ffff:192.0.2.1]:5".parse().unwrap());
        assert_eq!(mapped.to_bytes(), endpoint(5).to_bytes());
    }
}
