//! `P2Plus_IK+kem1_psk2_25519+MLKEM768_ChaChaPoly_BLAKE2s`: Noise IK, then an ephemeral ML-KEM-768, then psk2 (docs/protocol.md, "Handshake").
//!
//! ```text
//! <- s
//! -> e, es, s, ss, payload1                                D1
//! -> ek                                                    D2a, D2b
//! <- e, ee, ct, MixKey(kem), se, psk, payload2             M2a, M2b
//! ```
//! Owns what both sides share: the local keys, the keys derived from them, the negotiated terms and the refusals.

mod agreements;
mod answer;
pub mod gate;
pub mod initiator;
mod keys;
pub mod noise;
pub mod responder;
mod table;
pub mod timestamps;

pub use keys::{LocalKeys, NetworkKeys};

use crate::crypto::aead::OpenError;
use crate::crypto::exchange::{ExchangeError, TransportKey};
use crate::crypto::identity::NodeId;
use crate::policy::Policy;
use crate::wire::datagram::DatagramError;
use crate::wire::handshake::{CipherSet, LedgerHead, Offer, OffloadSet, PayloadError, Timestamp, Versions};
use noise::{PskMode, SymmetricState};
use std::sync::Arc;
use std::time::Duration;

use super::seal::Session;

/// The Noise protocol name: hashed, because it is longer than 32 bytes (Noise §5.2).
pub const PROTOCOL_NAME: &[u8] = b"P2Plus_IK+kem1_psk2_25519+MLKEM768_ChaChaPoly_BLAKE2s";

/// Front of the prologue; the network id follows.
pub const PROLOGUE: &[u8] = b"P2Plus/1";

/// After this an initiator gives up and begins again with new ephemeral keys.
pub const ATTEMPT_LIFETIME: Duration = Duration::from_secs(5);

/// How long a responder keeps what it knows of an initiation: an attempt's life and the reordering of a slow path.
pub const HALF_OPEN_LIFETIME: Duration = Duration::from_secs(8);

/// The only protocol version so far.
pub const VERSION: u8 = 1;

/// What a node brings into every handshake, apart from its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The versions that this program speaks.
    pub versions: Versions,
    /// The oldest version that the network still allows for more than sync.
    pub minimum_version: u8,
    /// The ciphers that are fast here.
    pub ciphers: CipherSet,
    /// How far the local ledger is.
    pub ledger: LedgerHead,
    /// What the local device takes.
    pub offload: OffloadSet,
}

impl Default for Terms {
    /// Version 1 with ChaCha20-Poly1305, an empty ledger, and a device that takes no super-packets.
    fn default() -> Self {
        Self {
            versions: Versions { lowest: VERSION, highest: VERSION },
            minimum_version: VERSION,
            ciphers: CipherSet::default(),
            ledger: LedgerHead::default(),
            offload: OffloadSet::default(),
        }
    }
}

impl Terms {
    /// Makes the initiator's payload.
    pub fn offer(&self, timestamp: Timestamp) -> Offer {
        let Self { versions, ciphers, ledger, offload, .. } = *self;
        Offer { timestamp, versions, ciphers, ledger, offload }
    }
}

/// The local node at one moment: what every step of a handshake looks at and none changes.
#[derive(Clone, Copy)]
pub struct Local<'a> {
    /// The keys.
    pub keys: &'a LocalKeys,
    /// Who may do what.
    pub policy: &'a Policy,
    /// What is offered and chosen.
    pub terms: &'a Terms,
}

/// Whom an initiator wants to reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aim {
    /// The responder's static key, from the ledger or a ticket.
    pub key: TransportKey,
    /// The member that the policy must find behind the key; none while the local ledger knows nobody (a join).
    pub identity: Option<NodeId>,
}

/// A finished handshake.
pub struct Established {
    /// The session, which nobody has confirmed yet.
    pub session: Arc<Session>,
    /// How far the peer's ledger is.
    pub ledger: LedgerHead,
    /// The version that both speak.
    pub version: u8,
    /// At the initiator: the responder treats this node as a guest, so that a joiner and a revoked node learn their standing.
    pub guest_there: bool,
    /// At the responder: the initiation's timestamp, to be stored once the session is confirmed.
    pub timestamp: Option<Timestamp>,
}

/// Why a handshake datagram changed nothing and got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Malformed: not a handshake datagram, or a false length or field.
    #[error(transparent)]
    Malformed(#[from] DatagramError),
    /// Unauthenticated: the sender does not know this node's key and the network's secret.
    #[error("mac1 is false")]
    Mac1,
    /// Unauthenticated: mac2 is neither zero nor made with a cookie for this source.
    #[error("mac2 is false")]
    Mac2,
    /// Unauthenticated: a sealed field does not open.
    #[error("a sealed field failed authentication")]
    Sealed,
    /// Unauthenticated: a key of small order, or a malformed encapsulation key.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// Replayed: the initiation was seen before and its state is gone, or it was answered with a cookie.
    #[error("the initiation was seen before")]
    Seen,
    /// Replayed: a later initiation of the same key was seen before.
    #[error("the initiation's timestamp is not later than the last one")]
    Stale,
    /// Unauthenticated: no attempt has the answer's index, or none any more.
    #[error("no attempt belongs to the answer")]
    NoAttempt,
    /// Unauthenticated: no initiation belongs to the part.
    #[error("no handshake belongs to the datagram")]
    NoHandshake,
    /// Unauthenticated: another part with the same place was accepted before.
    #[error("the part differs from one accepted before")]
    Conflict,
    /// Refused: an authenticated payload breaks the rules.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Refused: the initiator uses this node's own key.
    #[error("the initiator uses this node's own key")]
    OwnKey,
    /// Refused: the policy does not find the member that was aimed for.
    #[error("the responder's key does not belong to the member that was aimed for")]
    NotTheAimed,
    /// Refused: the policy changed between D1 and the last part.
    #[error("the policy changed during the handshake")]
    PolicyChanged,
    /// Exhausted: too many initiations wait for their other parts.
    #[error("too many initiations are half open")]
    HalfOpenFull,
    /// Exhausted: too many initiations of this key, or from this guest's address.
    #[error("too many initiations of this peer are half open")]
    PeerFull,
    /// Exhausted: no session index is free.
    #[error("no session index is free")]
    NoIndex,
}

impl From<OpenError> for Refusal {
    fn from(_: OpenError) -> Self {
        Self::Sealed
    }
}

/// Begins the transcript: name, prologue, and the responder's static key as pre-message (Noise §5.3, IK).
fn begin(keys: &LocalKeys, responder: &TransportKey) -> SymmetricState {
    let prologue = [PROLOGUE, &keys.network_id.0].concat();
    let mut noise = SymmetricState::new(PROTOCOL_NAME, &prologue, PskMode::WithPsk);
    noise.mix_hash(&[&responder.0]); // <- s
    noise
}

#[cfg(test)]
mod tests;
