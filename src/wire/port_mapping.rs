//! How a gateway is asked to pass a UDP port on: the Port Control Protocol, and NAT-PMP, which it grew out of.
//!
//! ```text
//!   PCP MAP (RFC 6887 §7, §11.1), request and answer      0       1       2       3
//!                                                         version op      -       result     op 1, of an answer 0x81
//!                                                         lifetime, seconds
//!     request: client address (16)                        answer: epoch (4), reserved (12)
//!     nonce (12)
//!     protocol reserved (3)
//!     internal port   external port
//!     external address (16)
//!
//!   NAT-PMP (RFC 6886 §3.2, §3.3)        request                                 answer
//!     the gateway's address              0 0                                     0 128 result(2) epoch(4) address(4)
//!     a UDP port                         0 1 0(2) internal(2) external(2) life(4)    0 129 result(2) epoch(4) internal(2) external(2) life(4)
//! ```
//! All fields are big-endian. What is not the answer to the request at hand is [`AnswerError::Foreign`]: anybody may have sent it, and the
//! true one may yet come.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::time::Duration;

/// Where gateways listen for both protocols.
pub const GATEWAY_PORT: u16 = 5351;

/// Bytes of an answer at most (RFC 6887 §7).
pub const MAX_ANSWER_LEN: usize = 1100;

/// Bytes of a PCP message with the MAP opcode and without options.
pub const PCP_MAP_LEN: usize = 60;

const PCP_VERSION: u8 = 2;
const NAT_PMP_VERSION: u8 = 0;
const PCP_MAP: u8 = 1;
const PCP_ANSWER: u8 = 0x80;
const NAT_PMP_ADDRESS: u8 = 0;
const NAT_PMP_MAP_UDP: u8 = 1;
const NAT_PMP_ANSWER: u8 = 128;
const UDP: u8 = 17;

/// What a client asks for. The same again renews it, and with no lifetime deletes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapRequest {
    /// The client's own address, which the gateway compares with the packet's source.
    pub client: Ipv4Addr,
    /// The UDP port that is to be reached.
    pub internal_port: u16,
    /// Where from outside; the gateway may choose another. Unspecified address and port 0 leave it to the gateway.
    pub external: SocketAddrV4,
    /// For how long, in whole seconds.
    pub lifetime: Duration,
    /// Shows, with PCP, that a later request is the same client's (RFC 6887 §11.3).
    pub nonce: [u8; 12],
}

/// What a gateway gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    /// The port from outside.
    pub external_port: u16,
    /// The address from outside; NAT-PMP tells it in another answer.
    pub external_address: Option<Ipv4Addr>,
    /// For how long.
    pub lifetime: Duration,
}

/// Why an answer gives nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is not the answer to this request, or none at all.
    #[error("not an answer to this request")]
    Foreign,
    /// The gateway does not know this protocol.
    #[error("it does not speak the protocol")]
    OtherProtocol,
    /// The gateway said no.
    #[error("result {code}: {}", meaning(*code))]
    Refused {
        /// Its reason.
        code: u16,
    },
}

/// The results that both protocols have, and some of PCP's (RFC 6886 §3.5, RFC 6887 §7.4).
fn meaning(code: u16) -> &'static str {
    match code {
        2 => "port mapping is switched off there, or not for this machine",
        3 => "it cannot read the request",
        4 | 8 => "it has no room for one more",
        7 => "it has no connection itself",
        10 => "this machine has all that it may have",
        11 => "that port is to be had no more",
        12 => "there is another NAT on the way to it",
        _ => "it refuses",
    }
}

impl MapRequest {
    /// The request in PCP.
    pub fn encode_pcp(&self) -> [u8; PCP_MAP_LEN] {
        let mut bytes = [0; PCP_MAP_LEN];
        bytes[0] = PCP_VERSION;
        bytes[1] = PCP_MAP;
        bytes[4..8].copy_from_slice(&seconds(self.lifetime));
        bytes[8..24].copy_from_slice(&self.client.to_ipv6_mapped().octets());
        bytes[24..36].copy_from_slice(&self.nonce);
        bytes[36] = UDP;
        bytes[40..42].copy_from_slice(&self.internal_port.to_be_bytes());
        bytes[42..44].copy_from_slice(&self.external.port().to_be_bytes());
        bytes[44..60].copy_from_slice(&self.external.ip().to_ipv6_mapped().octets());
        bytes
    }

    /// The request in NAT-PMP.
    pub fn encode_nat_pmp(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0] = NAT_PMP_VERSION;
        bytes[1] = NAT_PMP_MAP_UDP;
        bytes[4..6].copy_from_slice(&self.internal_port.to_be_bytes());
        // A deletion names no external port (RFC 6886 §3.4).
        let external = if self.lifetime.is_zero() { 0 } else { self.external.port() };
        bytes[6..8].copy_from_slice(&external.to_be_bytes());
        bytes[8..12].copy_from_slice(&seconds(self.lifetime));
        bytes
    }

    /// Reads the answer to [`encode_pcp`](Self::encode_pcp).
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn decode_pcp(&self, bytes: &[u8]) -> Result<Granted, AnswerError> {
        let [version, opcode, ..] = *bytes else { return Err(AnswerError::Foreign) };
        // A gateway that knows NAT-PMP alone says so in its own words (RFC 6887 §9): as an answer of any kind, or "unsupported version".
        if version != PCP_VERSION {
            return Err(if opcode >= PCP_ANSWER { AnswerError::OtherProtocol } else { AnswerError::Foreign });
        }
        if opcode != PCP_ANSWER | PCP_MAP {
            return Err(AnswerError::Foreign);
        }
        let Some(bytes) = bytes.first_chunk::<PCP_MAP_LEN>() else { return Err(AnswerError::Foreign) };
        let is_for_us = bytes[24..36] == self.nonce && bytes[36] == UDP && port(bytes, 40) == self.internal_port;
        if !is_for_us {
            return Err(AnswerError::Foreign);
        }
        match bytes[3] {
            0 => {}
            1 => return Err(AnswerError::OtherProtocol),
            code => return Err(AnswerError::Refused { code: code.into() }),
        }
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[44..60]);
        let external_address = Ipv6Addr::from(address).to_ipv4_mapped();
        Ok(Granted { external_port: port(bytes, 42), external_address, lifetime: lifetime(bytes, 4) })
    }

    /// Reads the answer to [`encode_nat_pmp`](Self::encode_nat_pmp).
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn decode_nat_pmp(&self, bytes: &[u8]) -> Result<Granted, AnswerError> {
        let answer = nat_pmp_answer::<16>(NAT_PMP_MAP_UDP, bytes)?;
        if port(answer, 8) != self.internal_port {
            return Err(AnswerError::Foreign);
        }
        Ok(Granted { external_port: port(answer, 10), external_address: None, lifetime: lifetime(answer, 12) })
    }
}

/// The NAT-PMP question for the gateway's external address.
pub const ADDRESS_REQUEST: [u8; 2] = [NAT_PMP_VERSION, NAT_PMP_ADDRESS];

/// Reads the answer to [`ADDRESS_REQUEST`].
///
/// # Errors
/// [`AnswerError`].
pub fn decode_address(bytes: &[u8]) -> Result<Ipv4Addr, AnswerError> {
    let answer = nat_pmp_answer::<12>(NAT_PMP_ADDRESS, bytes)?;
    Ok(Ipv4Addr::new(answer[8], answer[9], answer[10], answer[11]))
}

/// The bytes of a good answer to an operation.
fn nat_pmp_answer<const LEN: usize>(operation: u8, bytes: &[u8]) -> Result<&[u8; LEN], AnswerError> {
    let [version, answered, high, low, ..] = *bytes else { return Err(AnswerError::Foreign) };
    if version != NAT_PMP_VERSION {
        return Err(if answered >= NAT_PMP_ANSWER { AnswerError::OtherProtocol } else { AnswerError::Foreign });
    }
    if answered != NAT_PMP_ANSWER + operation {
        return Err(AnswerError::Foreign);
    }
    match u16::from_be_bytes([high, low]) {
        0 => bytes.first_chunk::<LEN>().ok_or(AnswerError::Foreign),
        1 | 5 => Err(AnswerError::OtherProtocol),
        // What is a malformed request in PCP is the gateway's missing connection here.
        3 => Err(AnswerError::Refused { code: 7 }),
        code => Err(AnswerError::Refused { code }),
    }
}

fn port(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn lifetime(bytes: &[u8], at: usize) -> Duration {
    Duration::from_secs(u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]).into())
}

fn seconds(lifetime: Duration) -> [u8; 4] {
    u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> MapRequest {
        MapRequest {
            client: Ipv4Addr::new(192, 168, 1, 2),
            internal_port: 4647,
            external: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 4647),
            lifetime: Duration::from_secs(1200),
            nonce: [7; 12],
        }
    }

    /// The answer of miniupnpd to [`request`], as the prototype of the lab saw it: 8.0.0.11:4647 for 1200 s.
    fn pcp_answer() -> [u8; PCP_MAP_LEN] {
        let mut answer = request().encode_pcp();
        answer[1] = 0x81;
        answer[8..24].fill(0);
        answer[44..60].copy_from_slice(&Ipv4Addr::new(8, 0, 0, 11).to_ipv6_mapped().octets());
        answer
    }

    #[test]
    fn a_pcp_request_has_the_layout_of_the_rfc() {
        let hex: String = request().encode_pcp().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "02010000000004b0",
            "00000000000000000000ffffc0a80102",
            "070707070707070707070707",
            "1100000012271227",
            "00000000000000000000ffff00000000",
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn a_nat_pmp_request_has_the_layout_of_the_rfc_and_a_deletion_names_no_external_port() {
        let request = request();
        assert_eq!(request.encode_nat_pmp(), [0, 1, 0, 0, 0x12, 0x27, 0x12, 0x27, 0, 0, 4, 0xb0]);
        let deletion = MapRequest { lifetime: Duration::ZERO, ..request };
        assert_eq!(deletion.encode_nat_pmp(), [0, 1, 0, 0, 0x12, 0x27, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_a_gateway_gave_is_read() {
        let granted = request().decode_pcp(&pcp_answer()).unwrap();
        assert_eq!(granted.external_address, Some(Ipv4Addr::new(8, 0, 0, 11)));
        assert_eq!((granted.external_port, granted.lifetime), (4647, Duration::from_secs(1200)));
        let answer = [0, 129, 0, 0, 0, 0, 0, 9, 0x12, 0x27, 0x30, 0x39, 0, 0, 2, 0x58];
        let granted = request().decode_nat_pmp(&answer).unwrap();
        assert_eq!((granted.external_port, granted.lifetime), (12345, Duration::from_secs(600)));
        assert_eq!(decode_address(&[0, 128, 0, 0, 0, 0, 0, 9, 8, 0, 0, 11]), Ok(Ipv4Addr::new(8, 0, 0, 11)));
    }

    #[test]
    fn the_answer_to_another_request_is_foreign() {
        for index in (24..37).chain(40..42) {
            let mut answer = pcp_answer();
            answer[index] ^= 1;
            assert_eq!(request().decode_pcp(&answer), Err(AnswerError::Foreign), "byte {index}");
        }
        let mut answer = [0, 129, 0, 0, 0, 0, 0, 9, 0x12, 0x27, 0x30, 0x39, 0, 0, 2, 0x58];
        answer[9] ^= 1;
        assert_eq!(request().decode_nat_pmp(&answer), Err(AnswerError::Foreign));
        assert_eq!(request().decode_pcp(&request().encode_pcp()), Err(AnswerError::Foreign), "a request is no answer");
    }

    #[test]
    fn a_refusal_and_another_protocol_are_told_apart() {
        let with_result = |code| {
            let mut answer = pcp_answer();
            answer[3] = code;
            answer
        };
        assert_eq!(request().decode_pcp(&with_result(2)), Err(AnswerError::Refused { code: 2 }));
        assert_eq!(request().decode_pcp(&with_result(1)), Err(AnswerError::OtherProtocol));
        let nat_pmp_alone = [0, 129, 0, 1, 0, 0, 0, 9];
        assert_eq!(request().decode_pcp(&nat_pmp_alone), Err(AnswerError::OtherProtocol));
        assert_eq!(decode_address(&pcp_answer()), Err(AnswerError::OtherProtocol), "a gateway with PCP alone");
        assert_eq!(decode_address(&[0, 128, 0, 3, 0, 0, 0, 9]), Err(AnswerError::Refused { code: 7 }));
        assert_eq!(request().decode_nat_pmp(&[0, 129, 0, 2]), Err(AnswerError::Refused { code: 2 }));
    }

    #[test]
    fn whatever_comes_is_read_without_harm() {
        for len in 0..PCP_MAP_LEN {
            for first in [0, 1, 2, 128, 255] {
                let mut bytes = pcp_answer();
                bytes[0] = first;
                let cut = &bytes[..len];
                assert!(request().decode_pcp(cut).is_err());
                let _ = request().decode_nat_pmp(cut);
                let _ = decode_address(cut);
            }
        }
    }
}
