//! The way through an HTTP proxy: what asks it for a connection, and whether it made one (RFC 9110 §9.3.6, RFC 7617).
//!
//! Owns the proxy's name as people write it, the request and the reading of the reply. Knows nothing of sockets.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Bytes of a reply's head at most: what proxies say is a few hundred.
pub const MAX_REPLY_LEN: usize = 8192;

/// The longest name and password of a proxy, in bytes each.
const MAX_CREDENTIAL_LEN: usize = 255;

/// An HTTP proxy, `http://[USER:PASSWORD@]HOST:PORT`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `USER:PASSWORD`, as it was written, percent signs resolved.
    credentials: Option<Vec<u8>>,
    text: String,
}

/// Why a text names no proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a proxy is `http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`, for example http://proxy.example:3128; {0}"
)]
pub struct BadProxy(&'static str);

/// What a proxy's reply says so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// It is not whole.
    Partial,
    /// The connection is there; its bytes begin so far behind the reply's.
    Connected(usize),
}

/// Why a proxy makes no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadReply {
    /// It refused.
    #[error("the proxy answers {0}{hint}", hint = if matches!(.0, 401 | 407) { ": it wants a name and a password, `proxy = \"http://USER:PASSWORD@HOST:PORT\"`" } else { "" })]
    Status(u16),
    /// It speaks no HTTP, or goes on without end.
    #[error("what listens there is no HTTP proxy")]
    Nonsense,
}

impl Proxy {
    /// The proxy's host, a name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The request for a connection to `target`.
    pub fn request(&self, target: SocketAddr) -> String {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(credentials) = &self.credentials {
            request += &format!("Proxy-Authorization: Basic {}\r\n", base64(credentials));
        }
        request + "\r\n"
    }
}

/// As it was written, without the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl From<Proxy> for String {
    fn from(proxy: Proxy) -> Self {
        proxy.text
    }
}

impl FromStr for Proxy {
    type Err = BadProxy;

    fn from_str(text: &str) -> Result<Self, BadProxy> {
        let rest = text.strip_prefix("http://").ok_or(BadProxy("it begins with http://"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(resolved(credentials)?), place),
            None => (None, rest),
        };
        let (host, port) = place.rsplit_once(':').ok_or(BadProxy("it has a port"))?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(BadProxy("its port is 1 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = bare.is_some_and(|bare| bare.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_name = !host.is_empty() && host.len() <= 253 && host.bytes().all(is_name_byte);
        if !is_address && !is_name {
            return Err(BadProxy("its host is a name or an address, one of IPv6 in brackets"));
        }
        let host = bare.filter(|_| is_address).unwrap_or(host).to_owned();
        Ok(Self { host, port, credentials, text: text.to_owned() })
    }
}

/// A name and a password, with what percent signs stand for.
fn resolved(text: &str) -> Result<Vec<u8>, BadProxy> {
    let part = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let byte = if byte == b'%' {
                let digits = [rest.next(), rest.next()].map(|digit| (digit? as char).to_digit(16));
                let [Some(high), Some(low)] = digits else { return Err(BadProxy("a percent sign has two digits")) };
                (high * 16 + low) as u8
            } else {
                byte
            };
            if byte.is_ascii_control() {
                return Err(BadProxy("its name and password have no control characters"));
            }
            bytes.push(byte);
        }
        let is_short = bytes.len() <= MAX_CREDENTIAL_LEN;
        is_short.then_some(bytes).ok_or(BadProxy("its name and password have 255 bytes at most"))
    };
    let (name, password) = text.split_once(':').ok_or(BadProxy("a password follows the name, behind a colon"))?;
    let name = part(name)?;
    if name.is_empty() || name.contains(&b':') {
        return Err(BadProxy("its user's name is not empty and has no colon"));
    }
    Ok([&name[..], b":", &part(password)?].concat())
}

/// Reads what a proxy said so far.
///
/// # Errors
/// [`BadReply`]: there will be no connection.
pub fn read_reply(bytes: &[u8]) -> Result<Reply, BadReply> {
    const FIRST: &[u8] = b"HTTP/1.";
    let common = FIRST.len().min(bytes.len());
    if bytes[..common] != FIRST[..common] {
        return Err(BadReply::Nonsense);
    }
    let Some(end) = bytes.windows(4).take(MAX_REPLY_LEN).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() >= MAX_REPLY_LEN { Err(BadReply::Nonsense) } else { Ok(Reply::Partial) };
    };
    // HTTP/1.D SSS, and perhaps a reason.
    let line = bytes[..end].split(|byte| *byte == b'\r').next().unwrap_or_default();
    let [b'0' | b'1', b' ', status @ ..] = &line[FIRST.len()..] else { return Err(BadReply::Nonsense) };
    let is_whole = status.get(3).is_none_or(|byte| *byte == b' ');
    let digits = status.get(..3).filter(|digits| is_whole && digits.iter().all(u8::is_ascii_digit));
    let status = digits.ok_or(BadReply::Nonsense)?.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if (200..300).contains(&status) { Ok(Reply::Connected(end + 4)) } else { Err(BadReply::Status(status)) }
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = |position: usize| ALPHABET[(bits >> (18 - 6 * position) & 63) as usize] as char;
        std::array::from_fn::<_, 4, _>(|position| if position <= chunk.len() { digit(position) } else { '=' })
    };
    bytes.chunks(3).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_standard() {
        let vectors = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]; // RFC 4648 §10
        vectors.iter().for_each(|(plain, coded)| assert_eq!(base64(plain.as_bytes()), *coded));
    }

    #[test]
    fn a_proxy_is_read_as_it_is_written() {
        let target = "192.0.2.1:443".parse().unwrap();
        let proxy: Proxy = "http://proxy.example:3128".parse().unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy.example", 3128));
        assert_eq!(proxy.request(target), "CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\r\n");
        // RFC 7617 §2.
        let proxy: Proxy = "http://Aladdin:open%20sesame@[2001:db8::1]:80/".parse().unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("2001:db8::1", 80));
        assert!(proxy.request(target).contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"));
        assert!(!format!("{proxy:?}").contains("sesame"));
        for bad in [
            "proxy.example:3128",
            "https://proxy.example:3128",
            "http://proxy.example",
            "http://proxy.example:0",
            "http://:3128",
            "http://pro xy:3128",
            "http://user@proxy:3128",
            "http://:x@proxy:3128",
            "http://a%0d%0aX:y@proxy:3128",
            "http://a%2:y@proxy:3128",
            "http://2001:db8::1:3128",
        ] {
            assert!(bad.parse::<Proxy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_whole_reply_of_success_is_a_connection() {
        let whole = b"HTTP/1.0 200 Connection established\r\nProxy-agent: x\r\n\r\nTLS";
        assert_eq!(read_reply(whole), Ok(Reply::Connected(whole.len() - 3)));
        (0..whole.len() - 3).for_each(|len| assert_eq!(read_reply(&whole[..len]), Ok(Reply::Partial), "{len}"));
        assert_eq!(read_reply(b"HTTP/1.1 204\r\n\r\n"), Ok(Reply::Connected(16)));
        for (bytes, expected) in [
            (&b"HTTP/1.1 407 Who are you\r\n\r\n"[..], BadReply::Status(407)),
            (b"HTTP/1.1 302 Found\r\n\r\n", BadReply::Status(302)),
            (b"SSH-2.0-OpenSSH_9.2\r\n", BadReply::Nonsense),
            (b"HTTP/1.1 2000 x\r\n\r\n", BadReply::Nonsense),
            (b"HTTP/1.1 20\r\n\r\n", BadReply::Nonsense),
            (b"HTTP/1.1  200\r\n\r\n", BadReply::Nonsense),
            (b"HTTP/2.0 200 \r\n\r\n", BadReply::Nonsense),
        ] {
            assert_eq!(read_reply(bytes), Err(expected), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(BadReply::Status(407).to_string().contains("USER:PASSWORD"));
    }

    #[test]
    fn a_reply_without_end_is_given_up() {
        let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
        while endless.len() < MAX_REPLY_LEN {
            assert_eq!(read_reply(&endless), Ok(Reply::Partial));
            endless.extend(b"X-More: and more of it\r\n");
        }
        assert_eq!(read_reply(&endless), Err(BadReply::Nonsense));
    }
}
