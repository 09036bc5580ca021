//! Replaying the stored chain from its beginning, some blocks at a time, so that the node goes on meanwhile.

use super::Ledger;
use crate::ledger::block::Height;
use crate::ledger::chain::{ChainError, Replay};
use crate::ledger::store::StoreError;

/// A replay of the stored chain under way.
#[derive(Default)]
pub struct Verification {
    replay: Option<Replay>,
}

/// Where the stored chain is wrong.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A block is wrong.
    #[error("block {height}: {error}")]
    Block {
        /// The first bad height.
        height: Height,
        /// What is wrong.
        error: ChainError,
    },
    /// A block is missing.
    #[error("block {0} is missing")]
    Missing(Height),
    /// The store cannot be read.
    #[error("block {height}: {error}")]
    Store {
        /// The height.
        height: Height,
        /// Why.
        error: StoreError,
    },
    /// The replay leads to another state than the stored one.
    #[error("the blocks do not lead to the stored state")]
    OtherState,
}

impl VerifyError {
    /// Returns the first bad height.
    pub fn height(&self) -> Option<Height> {
        match self {
            Self::Block { height, .. } | Self::Missing(height) | Self::Store { height, .. } => Some(*height),
            Self::OtherState => None,
        }
    }
}

impl Verification {
    /// Returns the height up to which everything was found right.
    pub fn verified(&self) -> Option<Height> {
        self.replay.as_ref().map(|replay| replay.head().height())
    }

    /// Replays up to `count` more blocks; returns the head once it is reached.
    ///
    /// # Errors
    /// [`VerifyError`] names the first thing that is wrong.
    pub fn step(&mut self, ledger: &Ledger, count: usize) -> Result<Option<Height>, VerifyError> {
        let head = ledger.head().ok_or(VerifyError::Missing(Height(0)))?.height();
        for _ in 0..count {
            let height = self.verified().map_or(Height(0), Height::next);
            if height > head {
                break;
            }
            self.advance(ledger, height)?;
        }
        match &self.replay {
            Some(replay) if replay.head().height() == head => {
                let same =
                    replay.state() == ledger.state() && Some(replay.head().id) == ledger.head().map(|head| head.id);
                if same { Ok(Some(head)) } else { Err(VerifyError::OtherState) }
            }
            _ => Ok(None),
        }
    }

    fn advance(&mut self, ledger: &Ledger, height: Height) -> Result<(), VerifyError> {
        let stored = ledger.block(height).map_err(|error| VerifyError::Store { height, error })?;
        let (block, certificate) = stored.ok_or(VerifyError::Missing(height))?;
        let wrong = |error| VerifyError::Block { height, error };
        match &mut self.replay {
            None => self.replay = Some(Replay::begin(ledger.network_id(), block, None).map_err(wrong)?),
            Some(replay) => {
                let certificate = certificate.ok_or(wrong(ChainError::WrongCertificate))?;
                replay.advance(&block, certificate).map_err(wrong)?;
            }
        }
        Ok(())
    }
}
