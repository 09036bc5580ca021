//! What the control API and the commands answer when something did not work: what failed, why, and what to do.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A failure with its cause as a code for programs and as text for people.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The cause, for programs.
    pub code: ErrorCode,
    /// What failed and why, one sentence without a full stop.
    pub message: String,
    /// What to do next.
    #[serde(default)]
    pub hint: Option<String>,
}

/// The cause of a [`Failure`]: a contract with programs, together with its exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Bad arguments or a bad configuration.
    Usage,
    /// No daemon answers for this network.
    NotRunning,
    /// The caller may not do this on this machine.
    Permission,
    /// No such peer, network, transaction, block or invite.
    NotFound,
    /// The network does not let this node do it.
    NotAuthorized,
    /// The node waits to be admitted.
    Pending,
    /// The network refused to admit this node.
    Refused,
    /// The network revoked this node.
    Revoked,
    /// The peer does not answer.
    Unreachable,
    /// Nothing happened in time.
    Timeout,
    /// A name, address, route, port or device is taken.
    Conflict,
    /// The ledger is too old to decide.
    Stale,
    /// The transaction is not in a block yet.
    NotFinal,
    /// A check found problems.
    CheckFailed,
    /// Everything else, and every code that a newer daemon may send.
    #[serde(other)]
    Failed,
}

impl Failure {
    /// Makes a failure without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 15] = [
        Self::Usage,
        Self::NotRunning,
        Self::Permission,
        Self::NotFound,
        Self::NotAuthorized,
        Self::Pending,
        Self::Refused,
        Self::Revoked,
        Self::Unreachable,
        Self::Timeout,
        Self::Conflict,
        Self::Stale,
        Self::NotFinal,
        Self::CheckFailed,
        Self::Failed,
    ];

    /// The exit code of a command that failed with it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::Permission => 4,
            Self::NotFound => 5,
            Self::NotAuthorized | Self::Pending | Self::Refused | Self::Revoked => 6,
            Self::Unreachable | Self::Timeout => 7,
            Self::Conflict => 8,
            Self::Stale | Self::NotFinal => 9,
            Self::CheckFailed => 10,
        }
    }

    /// The HTTP status of a reply with it (RFC 9110 §15).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Usage => 400,
            Self::Permission | Self::NotAuthorized | Self::Pending | Self::Refused | Self::Revoked => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Failed | Self::CheckFailed => 500,
            Self::Unreachable => 502,
            Self::NotRunning | Self::Stale => 503,
            Self::Timeout | Self::NotFinal => 504,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let codes: Vec<_> = ErrorCode::ALL.map(ErrorCode::exit_code).to_vec();
        assert_eq!(codes, [2, 3, 4, 5, 6, 6, 6, 6, 7, 7, 8, 9, 9, 10, 1]);
    }

    #[test]
    fn a_code_of_a_newer_daemon_is_a_plain_failure() {
        let failure: Failure = serde_json::from_str(r#"{"code":"eclipsed","message":"the moon","hint":null}"#).unwrap();
        assert_eq!(failure, Failure::new(ErrorCode::Failed, "the moon"));
    }
}
