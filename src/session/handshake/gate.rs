//! What a handshake datagram has to show before it may take the node's time: mac1, mac2 where there is one, and the attempt it answers.
//!
//! An immutable value for any thread, so that what a stranger sends, who knows neither the receiver's key nor the network's secret, ends
//! where it was received. Decides nothing for good: the responder and the initiator check again.

use super::{LocalKeys, NetworkKeys, Refusal};
use crate::crypto::secret::Secret;
use crate::session::cookie::{Source, mac2_matches};
use crate::wire::datagram::{Datagram, DatagramError, SessionIndex, TYPE_INITIATION};
use crate::wire::handshake::{Initiation, InitiationTag, KeyPart, MAC_LEN, Response};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The keys of mac1, the secrets of the cookies that are accepted, and the attempts under way: each shared, for a gate is made often.
pub struct Gate {
    keys: Vec<Arc<NetworkKeys>>,
    cookie_secrets: Vec<Arc<Secret<32>>>,
    attempts: Arc<BTreeSet<SessionIndex>>,
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
    /// M2a, M2b or a cookie, for an attempt under way.
    Answer,
}

impl Gate {
    /// A gate that lets no handshake in.
    pub fn closed() -> Self {
        Self { keys: Vec::new(), cookie_secrets: Vec::new(), attempts: Arc::default() }
    }

    /// The gate of a node with these keys that accepts cookies under these secrets, and answers to these attempts.
    pub(super) fn new(
        local: &LocalKeys,
        cookie_secrets: Vec<Arc<Secret<32>>>,
        attempts: Arc<BTreeSet<SessionIndex>>,
    ) -> Self {
        let statics = std::iter::once(local.current()).chain(local.retired());
        Self { keys: statics.map(|own| Arc::clone(&own.network)).collect(), cookie_secrets, attempts }
    }

    /// Checks mac1, mac2, and whether what claims to answer an attempt names one.
    ///
    /// # Errors
    /// [`Refusal`]: malformed, or one of the three is false.
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
                self.check_attempt(response.receiver)
            }
            // Sealed with a key that only its initiator's attempt has; but its index is random, and only who sees the initiation knows it.
            Datagram::Cookie(receiver, _) => self.check_attempt(receiver),
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

    fn check_attempt(&self, receiver: SessionIndex) -> Result<Knock, Refusal> {
        self.attempts.contains(&receiver).then_some(Knock::Answer).ok_or(Refusal::NoAttempt)
    }
}
