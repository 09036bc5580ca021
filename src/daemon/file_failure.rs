//! What goes wrong with a network's files, as a person is told it.

use super::failure::{ErrorCode, Failure};
use crate::io::key_file::KeyFileError;
use crate::io::keystore::KeystoreError;
use crate::io::lock::LockError;
use crate::ledger::engine::OpenError;

impl From<KeystoreError> for Failure {
    fn from(error: KeystoreError) -> Self {
        let code = match &error {
            KeystoreError::Exists { .. } => ErrorCode::Conflict,
            KeystoreError::NotFound { .. } => ErrorCode::NotFound,
            KeystoreError::BadName { .. } => ErrorCode::Usage,
            KeystoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                ErrorCode::Permission
            }
            _ => ErrorCode::Failed,
        };
        of_the_system(code, &error)
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        let code = match &error {
            KeyFileError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                ErrorCode::Permission
            }
            _ => ErrorCode::Failed,
        };
        of_the_system(code, &error)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let code = match &error {
            LockError::Held { .. } => ErrorCode::Conflict,
            LockError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                ErrorCode::Permission
            }
            LockError::Io { .. } => ErrorCode::Failed,
        };
        of_the_system(code, &error)
    }
}

/// What the file system said; most of it says itself what to do.
fn of_the_system(code: ErrorCode, error: &impl std::fmt::Display) -> Failure {
    let failure = Failure::new(code, error.to_string());
    if code == ErrorCode::Permission { failure.hint("use sudo") } else { failure }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::new(ErrorCode::Failed, format!("the ledger cannot be used, so no data is carried: {error}")).hint(
            "restore the state folder from its newest copy, or leave the network and join it again with a new ticket",
        )
    }
}
