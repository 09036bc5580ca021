//! On what terms a member relays for others, as a signer approved them.
//!
//! Every member that can be reached may relay; one that the ledger names is found before any session, and preferred by its class. Owns the
//! one form of these terms. Refuses to know how anything is relayed.

use crate::wire::endpoint::{BadEndpoint, StaticEndpoints};
use borsh::{BorshDeserialize, BorshSerialize};
use std::io;

/// The highest class of a relay: the first that is chosen.
pub const MAX_RELAY_CLASS: u8 = 3;

/// The class of a relay that nobody chose one for: below those that an operator prefers, above those kept for emergencies.
pub const DEFAULT_RELAY_CLASS: u8 = 2;

/// Where a member relays for others, and how much it is preferred.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize)]
pub struct RelayTerms {
    endpoints: StaticEndpoints,
    /// 0 for none.
    tls_port: u16,
    class: u8,
}

/// Why something is no terms of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRelay {
    /// It could not be found.
    #[error("a relay has at least one endpoint")]
    NoEndpoint,
    /// An endpoint that is none, or too many of them.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    /// A class that there is not.
    #[error("the class of a relay is 1 to {MAX_RELAY_CLASS}")]
    Class,
}

impl RelayTerms {
    /// Makes the terms of a relay at `endpoints`, and by TLS at `tls_port` of the same addresses unless that is 0.
    ///
    /// # Errors
    /// [`BadRelay::NoEndpoint`], [`BadRelay::Class`].
    pub fn new(endpoints: StaticEndpoints, tls_port: u16, class: u8) -> Result<Self, BadRelay> {
        if endpoints.as_slice().is_empty() {
            return Err(BadRelay::NoEndpoint);
        }
        if !(1..=MAX_RELAY_CLASS).contains(&class) {
            return Err(BadRelay::Class);
        }
        Ok(Self { endpoints, tls_port, class })
    }

    /// Where it is reached by UDP: one to four endpoints.
    pub fn endpoints(&self) -> &StaticEndpoints {
        &self.endpoints
    }

    /// The port at which the same addresses are reached by TLS.
    pub fn tls_port(&self) -> Option<u16> {
        (self.tls_port != 0).then_some(self.tls_port)
    }

    /// How much it is preferred: 1 to [`MAX_RELAY_CLASS`], the highest first.
    pub fn class(&self) -> u8 {
        self.class
    }

    /// Says whether both are in the same places, however much each is preferred.
    pub fn is_where(&self, other: &Self) -> bool {
        self.endpoints == other.endpoints && self.tls_port == other.tls_port
    }
}

impl BorshDeserialize for RelayTerms {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let (endpoints, tls_port, class) = BorshDeserialize::deserialize_reader(reader)?;
        Self::new(endpoints, tls_port, class)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_without_an_endpoint_or_with_another_class_are_none() {
        let endpoints = StaticEndpoints::new(["192.0.2.1:4647".parse().unwrap()]).unwrap();
        let terms = RelayTerms::new(endpoints.clone(), 443, 3).unwrap();
        let bytes = borsh::to_vec(&terms).unwrap();
        assert_eq!(borsh::from_slice::<RelayTerms>(&bytes).unwrap(), terms);
        for class in [0, 4] {
            assert_eq!(RelayTerms::new(endpoints.clone(), 443, class), Err(BadRelay::Class));
            let bytes = [&bytes[..bytes.len() - 1], &[class]].concat();
            assert!(borsh::from_slice::<RelayTerms>(&bytes).is_err(), "{class}");
        }
        assert_eq!(RelayTerms::new(StaticEndpoints::default(), 443, 2), Err(BadRelay::NoEndpoint));
        assert_eq!(RelayTerms::new(endpoints, 0, 2).unwrap().tls_port(), None);
    }
}
