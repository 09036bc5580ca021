//! The name under which each refusal is counted.

use super::handshake::Refusal;
use super::replay::ReplayError;
use super::seal::{OpenError, SealError};
use crate::wire::drops::DropReason;

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(_) => Self::MalformedDatagram,
            Refusal::Mac1 | Refusal::Mac2 => Self::BadMac,
            Refusal::NoAttempt => Self::UnknownSession,
            Refusal::Seen | Refusal::Stale => Self::HandshakeReplayed,
            Refusal::HalfOpenFull | Refusal::PeerFull | Refusal::NoIndex => Self::HalfOpenFull,
            Refusal::Sealed
            | Refusal::Exchange(_)
            | Refusal::NoHandshake
            | Refusal::Conflict
            | Refusal::Payload(_)
            | Refusal::OwnKey
            | Refusal::PolicyChanged
            | Refusal::NotTheAimed => Self::HandshakeRefused,
        }
    }
}

impl From<SealError> for DropReason {
    fn from(error: SealError) -> Self {
        match error {
            SealError::NoRoom => Self::TooLarge,
            SealError::Expired | SealError::Outdated => Self::SessionExpired,
            SealError::Exhausted => Self::CounterExhausted,
        }
    }
}

impl From<OpenError> for DropReason {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::PastLimit => Self::MalformedDatagram,
            OpenError::Expired | OpenError::TooManyForgeries => Self::SessionExpired,
            OpenError::Replay(ReplayError::TooManyLanes) => Self::LanesExhausted,
            OpenError::Replay(_) => Self::Replayed,
            OpenError::Forged => Self::Unauthenticated,
        }
    }
}
