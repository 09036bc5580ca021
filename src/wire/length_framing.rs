//! Datagrams on a byte stream: each behind its length, `u16` (docs/protocol.md, "TLS").
//!
//! Owns the two bytes and the bounds. A length that no datagram has ends the stream: nobody knows where the next one would begin.

/// Bytes in front of each datagram.
pub const LENGTH_LEN: usize = 2;

/// The longest datagram, in bytes: a UDP datagram's payload over IPv4.
pub const MAX_FRAMED: usize = 65_507;

/// A length that no datagram has: zero, or more than [`MAX_FRAMED`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no datagram has {0} bytes")]
pub struct BadLength(pub usize);

/// Reads the length off the front of what came: that of the next datagram, behind its length; none while even that is not whole.
///
/// # Errors
/// [`BadLength`]: the stream is of no more use.
pub fn framed_len(bytes: &[u8]) -> Result<Option<usize>, BadLength> {
    let Some(length) = bytes.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    match usize::from(u16::from_le_bytes(*length)) {
        len @ 1..=MAX_FRAMED => Ok(Some(len)),
        len => Err(BadLength(len)),
    }
}

/// The bytes in front of a datagram of `len` bytes; none when it may not travel so.
pub fn length_of(len: usize) -> Option<[u8; LENGTH_LEN]> {
    let is_possible = (1..=MAX_FRAMED).contains(&len);
    u16::try_from(len).ok().filter(|_| is_possible).map(u16::to_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_front_is_read_back() {
        for len in [1, 2, 255, 256, 1472, MAX_FRAMED] {
            assert_eq!(framed_len(&length_of(len).unwrap()), Ok(Some(len)));
        }
        assert_eq!([framed_len(&[]), framed_len(&[7])], [Ok(None); 2]);
    }

    #[test]
    fn a_length_that_no_datagram_has_is_refused_on_both_sides() {
        for len in [0, MAX_FRAMED + 1, usize::from(u16::MAX)] {
            assert_eq!(framed_len(&(len as u16).to_le_bytes()), Err(BadLength(len)));
            assert_eq!(length_of(len), None);
        }
        assert_eq!(length_of(70_000), None);
    }
}
