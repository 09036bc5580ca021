//! Endpoints on the underlay: where a node can be at all, and those that stay where they are, which the ledger names.

use borsh::{BorshDeserialize, BorshSerialize};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The most static endpoints of one relay or validator: two interfaces, each with both versions of IP.
pub const MAX_STATIC_ENDPOINTS: usize = 4;

/// The address of cloud metadata services: never probed, whoever names it.
const CLOUD_METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Says whether a node can be there at all: not at loopback, unspecified, multicast and broadcast addresses, at port 0, or where clouds have
/// their metadata service. What the ledger may name follows from it, so another answer is another protocol version.
pub fn is_possible(endpoint: &SocketAddr) -> bool {
    let forbidden_ip = match endpoint.ip().to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip == CLOUD_METADATA
                || ip.octets()[0] == 0
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_multicast(),
    };
    !forbidden_ip && endpoint.port() != 0
}

/// UDP endpoints that stay where they are: at most [`MAX_STATIC_ENDPOINTS`], sorted and distinct, each of them possible and the same
/// wherever one is.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize)]
pub struct StaticEndpoints(Vec<SocketAddr>);

/// Why something is no list of static endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// Nobody can be reached there, or another one on each link.
    #[error("{0} is nowhere that everybody could reach a node")]
    Forbidden(SocketAddr),
    /// More than [`MAX_STATIC_ENDPOINTS`].
    #[error("a node has at most {MAX_STATIC_ENDPOINTS} static endpoints")]
    TooMany,
}

impl StaticEndpoints {
    /// Takes endpoints in any order and spelling.
    ///
    /// # Errors
    /// [`BadEndpoint`].
    pub fn new(endpoints: impl IntoIterator<Item = SocketAddr>) -> Result<Self, BadEndpoint> {
        let canonical = |endpoint: SocketAddr| SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
        let mut endpoints: Vec<_> = endpoints.into_iter().map(canonical).collect();
        if let Some(endpoint) =
            endpoints.iter().find(|endpoint| !is_possible(endpoint) || is_of_one_link(endpoint.ip()))
        {
            return Err(BadEndpoint::Forbidden(*endpoint));
        }
        endpoints.sort_unstable();
        endpoints.dedup();
        if endpoints.len() > MAX_STATIC_ENDPOINTS { Err(BadEndpoint::TooMany) } else { Ok(Self(endpoints)) }
    }

    /// Lends them in order: those of IPv4 first.
    pub fn as_slice(&self) -> &[SocketAddr] {
        &self.0
    }
}

/// Says whether an address means another host on each link (RFC 3927, RFC 4291 §2.5.6).
fn is_of_one_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Reads endpoints and refuses those that [`StaticEndpoints::new`] would have written otherwise.
impl BorshDeserialize for StaticEndpoints {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let listed = Vec::deserialize_reader(reader)?;
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let endpoints = Self::new(listed.iter().copied()).map_err(|error| invalid(error.to_string()))?;
        if endpoints.0 == listed { Ok(endpoints) } else { Err(invalid("endpoints in another form".to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn static_endpoints_have_one_form() {
        let texts = ["[2001:db8::1]:4647", "[::ffff:203.0.113.7]:4647", "203.0.113.7:4647", "192.0.2.1:1"];
        let endpoints = StaticEndpoints::new(texts.map(endpoint)).unwrap();
        let sorted = ["192.0.2.1:1", "203.0.113.7:4647", "[2001:db8::1]:4647"].map(endpoint);
        assert_eq!(endpoints.as_slice(), sorted);
        let bytes = borsh::to_vec(&endpoints).unwrap();
        assert_eq!(borsh::from_slice::<StaticEndpoints>(&bytes).unwrap(), endpoints);
        for other in [
            vec!["203.0.113.7:4647", "192.0.2.1:1"],
            vec!["192.0.2.1:1", "192.0.2.1:1"],
            vec!["[::ffff:203.0.113.7]:4647"],
            vec!["127.0.0.1:4647"],
        ] {
            let listed: Vec<_> = other.iter().map(|text| endpoint(text)).collect();
            assert!(borsh::from_slice::<StaticEndpoints>(&borsh::to_vec(&listed).unwrap()).is_err(), "{other:?}");
        }
    }

    #[test]
    fn what_nobody_or_not_everybody_could_reach_is_no_static_endpoint() {
        for text in [
            "127.0.0.1:4647",
            "[::1]:4647",
            "0.0.0.0:4647",
            "0.1.2.3:4647",
            "[::]:4647",
            "224.0.0.1:4647",
            "[ff02::1]:4647",
            "255.255.255.255:4647",
            "169.254.169.254:80",
            "169.254.1.1:4647",
            "[fe80::1]:4647",
            "[::ffff:127.0.0.1]:4647",
            "192.0.2.1:0",
        ] {
            assert!(matches!(StaticEndpoints::new([endpoint(text)]), Err(BadEndpoint::Forbidden(_))), "{text}");
        }
        let some = |count: u16| StaticEndpoints::new((1..=count).map(|port| SocketAddr::from(([192, 0, 2, 1], port))));
        assert_eq!(some(4).unwrap().as_slice().len(), MAX_STATIC_ENDPOINTS);
        assert_eq!(some(5), Err(BadEndpoint::TooMany));
    }
}
