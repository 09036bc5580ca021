//! PCP and NAT-PMP over one UDP socket that is connected to the gateway: the kernel hands nobody else's datagrams up.

use super::{Mapping, Protocol, Refusal, Target};
use crate::wire::port_mapping::{
    ADDRESS_REQUEST, AnswerError, GATEWAY_PORT, Granted, MAX_ANSWER_LEN, MapRequest, decode_address,
};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// How long each copy of a request waits for its answer. The standards begin with 250 ms too, but wait a minute in all, for a gateway that
/// has another one to ask; a home router answers in a few milliseconds.
const PATIENCE: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];

/// Datagrams that are no answer, read for one request: who sends more of them than that is not listened to.
const MAX_FOREIGN: usize = 32;

/// A socket towards the gateway.
pub(super) struct Gateway {
    socket: UdpSocket,
    target: Target,
    nonce: [u8; 12],
}

/// Why a gateway did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// No answer came.
    #[error("no answer")]
    Silent,
    /// It knows nothing of this protocol.
    #[error("it does not speak this")]
    Unknown,
    /// It said no.
    #[error("it refuses: {0}")]
    Refused(Fault),
    /// Nothing could be sent there.
    #[error("it is out of reach: {0}")]
    Unreachable(#[source] io::Error),
}

/// A gateway's reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Fault {
    /// In the words of PCP and NAT-PMP.
    #[error(transparent)]
    Answer(AnswerError),
    /// In the numbers of UPnP.
    #[error("error {0}")]
    Upnp(u16),
}

impl AskError {
    pub(super) fn into_refusal(self, by: Protocol) -> Refusal {
        match self {
            Self::Refused(Fault::Answer(AnswerError::Refused { code }) | Fault::Upnp(code)) => {
                Refusal::Refused { by, code }
            }
            Self::Silent | Self::Unknown | Self::Refused(_) | Self::Unreachable(_) => Refusal::Silent,
        }
    }
}

impl Gateway {
    pub(super) async fn open(target: Target, mark: u32, nonce: [u8; 12]) -> io::Result<Self> {
        let socket = UdpSocket::from_std(marked(Type::DGRAM, target.source, mark)?.into())?;
        socket.connect((target.gateway, GATEWAY_PORT)).await?;
        Ok(Self { socket, target, nonce })
    }

    /// Asks by PCP for a mapping; for no time, for its end.
    pub(super) async fn map_by_pcp(&self, external_port: u16, lifetime: Duration) -> Result<Mapping, AskError> {
        let request = self.request(external_port, lifetime);
        let granted = self.ask(&request.encode_pcp(), |answer| request.decode_pcp(answer)).await?;
        mapping(granted, granted.external_address)
    }

    /// Asks by NAT-PMP for the external address, and then for a mapping.
    pub(super) async fn map_by_nat_pmp(&self, external_port: u16, lifetime: Duration) -> Result<Mapping, AskError> {
        let address = self.ask(&ADDRESS_REQUEST, decode_address).await?;
        let request = self.request(external_port, lifetime);
        let granted = self.ask(&request.encode_nat_pmp(), |answer| request.decode_nat_pmp(answer)).await?;
        mapping(granted, Some(address))
    }

    /// Asks by NAT-PMP for the end of the mapping.
    pub(super) async fn delete_by_nat_pmp(&self) -> Result<(), AskError> {
        let request = self.request(0, Duration::ZERO);
        self.ask(&request.encode_nat_pmp(), |answer| request.decode_nat_pmp(answer)).await.map(drop)
    }

    fn request(&self, external_port: u16, lifetime: Duration) -> MapRequest {
        MapRequest {
            client: self.target.source,
            internal_port: self.target.port,
            external: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, external_port),
            lifetime,
            nonce: self.nonce,
        }
    }

    /// Sends a request until its answer comes.
    async fn ask<T>(&self, request: &[u8], decode: impl Fn(&[u8]) -> Result<T, AnswerError>) -> Result<T, AskError> {
        let mut answer = [0; MAX_ANSWER_LEN];
        let mut foreign = 0;
        for patience in PATIENCE {
            self.socket.send(request).await.map_err(closed)?;
            let deadline = Instant::now() + patience;
            while foreign < MAX_FOREIGN {
                let Ok(received) = timeout_at(deadline, self.socket.recv(&mut answer)).await else { break };
                match decode(&answer[..received.map_err(closed)?]) {
                    Ok(granted) => return Ok(granted),
                    Err(AnswerError::Foreign) => foreign += 1,
                    Err(AnswerError::OtherProtocol) => return Err(AskError::Unknown),
                    Err(refused) => return Err(AskError::Refused(Fault::Answer(refused))),
                }
            }
        }
        Err(AskError::Silent)
    }
}

/// Where nobody listens the gateway itself says so, by ICMP.
fn closed(error: io::Error) -> AskError {
    if error.kind() == io::ErrorKind::ConnectionRefused { AskError::Unknown } else { AskError::Unreachable(error) }
}

fn mapping(granted: Granted, address: Option<Ipv4Addr>) -> Result<Mapping, AskError> {
    // A gateway that maps IPv4 to IPv6 alone is none for this.
    let address = address.ok_or(AskError::Unknown)?;
    Ok(Mapping { external: SocketAddrV4::new(address, granted.external_port), lifetime: granted.lifetime })
}

/// Opens a socket at the host's address on the way to the gateway, with the daemon's mark.
pub(super) fn marked(kind: Type, source: Ipv4Addr, mark: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    Ok(socket)
}
