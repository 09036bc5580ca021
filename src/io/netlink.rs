//! Request and answer on a routing-netlink socket, blocking.
//!
//! The kernel answers while it takes the request, so nothing here waits for anybody: no runtime is needed, and any thread may call, in
//! whatever network namespace it is. Message types and builders are rtnetlink's. Source: RFC 3549, netlink(7), rtnetlink(7).

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use socket2::SockRef;
use std::io;
use std::time::Duration;

/// Messages start at multiples of this within a datagram (`NLMSG_ALIGNTO`).
const ALIGN: usize = 4;
/// How often a listing is begun anew because what is listed changed meanwhile.
const DUMP_ATTEMPTS: usize = 5;
/// How long an answer may take that the kernel gives at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket for requests, used by one thread at a time.
pub(super) struct NetlinkSocket {
    socket: Socket,
    sequence: u32,
}

impl NetlinkSocket {
    /// Opens a socket in the network namespace of this thread; it stays there.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        SockRef::from(&socket).set_read_timeout(Some(ANSWER_TIMEOUT))?;
        // With it the kernel lists what was asked for alone: one table, not a router's million routes. Before Linux 4.20 it does not know how.
        if let Err(error) = socket.set_netlink_get_strict_chk(true) {
            tracing::debug!(%error, "the kernel lists more than it is asked for");
        }
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes a change and waits for the kernel's word on it; `flags` are those beside REQUEST and ACK.
    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            for (_, payload) in self.receive()? {
                match payload {
                    NetlinkPayload::Error(answer) if answer.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// Asks for one thing and returns it.
    pub(super) fn ask(&mut self, message: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        self.send(message, NLM_F_REQUEST)?;
        loop {
            for (_, payload) in self.receive()? {
                match payload {
                    NetlinkPayload::InnerMessage(answer) => return Ok(answer),
                    NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// Lists everything that `message` asks for.
    pub(super) fn dump(&mut self, message: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(answers) = self.try_dump(message.clone())? {
                return Ok(answers);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the network's configuration changes faster than it can be read",
        ))
    }

    /// Lists once; `None` when the kernel says that the list is inconsistent.
    fn try_dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut answers = Vec::new();
        let mut consistent = true;
        loop {
            for (header, payload) in self.receive()? {
                consistent &= header.flags & NLM_F_DUMP_INTR == 0;
                match payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok(consistent.then_some(answers)),
                    NetlinkPayload::Error(answer) if answer.code.is_some() => return Err(answer.to_io()),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Receives one datagram's messages, as far as they answer the last request.
    fn receive(&mut self) -> io::Result<Vec<(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>)>> {
        let mut answers = receive_messages(&self.socket)?;
        answers.retain(|(header, _)| header.sequence_number == self.sequence);
        Ok(answers)
    }
}

/// Receives one datagram from the kernel and parses its messages. One that rtnetlink cannot parse is left out and logged: kernels grow
/// attributes, and the others still count.
pub(super) fn receive_messages(
    socket: &Socket,
) -> io::Result<Vec<(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>)>> {
    let (datagram, sender) = socket.recv_from_full()?;
    let mut messages = Vec::new();
    if sender.port_number() != 0 {
        return Ok(messages);
    }
    let mut rest = datagram.as_slice();
    while let Ok(buffer) = NetlinkBuffer::new_checked(rest) {
        let length = buffer.length() as usize;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
            Ok(message) => messages.push(message.into_parts()),
            Err(error) => tracing::debug!(%error, kind = buffer.message_type(), "netlink message not understood"),
        }
        rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    Ok(messages)
}
