//! What a handshake datagram has to show before it may take the node's time: mac1, and mac2 where there is one.
//!
//! An immutable value for any thread, so that what a stranger sends, who knows neither the receiver's key nor the network's secret, ends
//! where it was received. Decides nothing for good: the responder and the initiator check again.

use super::{LocalKeys, NetworkKeys, Refusal};
use crate::crypto::secret::Secret;
use crate::session::cookie::{Source, mac2_matches};
use crate::wire::data::{Datagram, DatagramError, TYPE_INITIATION};
use crate::wire::handshake::{Initiation, InitiationTag, KeyPart, MAC_LEN, Response};
use std::sync::Arc;

/// The keys of mac1, and the secrets of the cookies that are accepted.
pub struct Gate {
    keys: Vec<NetworkKeys>,
    cookie_secrets: Vec<Arc<Secret<32>>>,
}

/// What a datagram that passed the gate claims to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Knock {
    /// D1.
    Opening {
        /// By which its other parts name it.
        tag: InitiationTag,
        /// Whether it has a cookie: its sender receives where it sends from.
        is_paid: bool,
    },
    /// D2a or D2b of this D1.
    Part(InitiationTag),
    /// M2a, M2b or a cookie.
    Answer,
}

impl Gate {
    /// A gate that lets no handshake in.
    pub const fn closed() -> Self {
        Self { keys: Vec::new(), cookie_secrets: Vec::new() }
    }

    /// The gate of a node with these keys that accepts cookies under these secrets.
    pub(super) fn new(local: &LocalKeys, cookie_secrets: Vec<Arc<Secret<32>>>) -> Self {
        let statics = std::iter::once(local.current()).chain(local.retired());
        Self { keys: statics.map(|own| local.network_keys(&own.secret.public_key())).collect(), cookie_secrets }
    }

    /// Checks mac1 and mac2.
    ///
    /// # Errors
    /// [`Refusal`]: malformed, or one of the two is false.
    pub fn check(&self, source: Source, datagram: &[u8]) -> Result<Knock, Refusal> {
        match Datagram::classify(datagram)? {
            Datagram::Initiation(_) => {
                let initiation = Initiation::decode(datagram)?;
                self.check_mac1(datagram, 2 * MAC_LEN, &initiation.mac1)?;
                let is_paid = initiation.mac2 != [0; MAC_LEN];
                if is_paid {
                    let covered = &datagram[..datagram.len() - MAC_LEN];
                    let is_valid = |secret: &Arc<Secret<32>>| mac2_matches(secret, source, covered, &initiation.mac2);
                    self.cookie_secrets.iter().any(is_valid).then_some(()).ok_or(Refusal::Mac2)?;
                }
                Ok(Knock::Opening { tag: InitiationTag::of(&initiation.mac1), is_paid })
            }
            Datagram::KeyPart(_) => {
                let part = KeyPart::decode(datagram)?;
                self.check_mac1(datagram, MAC_LEN, &part.mac1)?;
                Ok(Knock::Part(part.initiation))
            }
            Datagram::Response(..) => {
                let response = Response::decode(datagram)?;
                self.check_mac1(datagram, 2 * MAC_LEN, &response.mac1)?;
                Ok(Knock::Answer)
            }
            // Sealed with a key that only its initiator's attempt has.
            Datagram::Cookie(..) => Ok(Knock::Answer),
            Datagram::Transport(_) | Datagram::Relayed(_) => {
                Err(DatagramError::UnknownType(datagram.first().copied().unwrap_or(TYPE_INITIATION)).into())
            }
        }
    }

    /// Checks mac1 over everything but the last `behind` bytes.
    fn check_mac1(&self, datagram: &[u8], behind: usize, mac1: &[u8; MAC_LEN]) -> Result<(), Refusal> {
        let covered = &datagram[..datagram.len() - behind];
        let is_valid = self.keys.iter().any(|keys| keys.mac1_is_valid(covered, mac1));
        is_valid.then_some(()).ok_or(Refusal::Mac1)
    }
}
