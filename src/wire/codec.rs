//! Checked reading and writing of little-endian fields.
//!
//! A [`Reader`] never looks past its bytes and a [`Writer`] never past its room; both say so with a [`CodecError`].

/// A field that is not there, or not as the layout wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("the bytes end inside a field")]
    Truncated,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    Trailing,
    /// A reserved field is not zero.
    #[error("a reserved field is not zero")]
    ReservedNotZero,
    /// The fields do not fit into the buffer.
    #[error("the fields do not fit into the buffer")]
    NoRoom,
}

/// Takes fields off the front of a byte string.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Takes the next `N` bytes.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when fewer remain; nothing is taken then.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (field, rest) = self.bytes.split_first_chunk::<N>().ok_or(CodecError::Truncated)?;
        self.bytes = rest;
        Ok(*field)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`CodecError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes a little-endian `u16`.
    ///
    /// # Errors
    /// [`CodecError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes a little-endian `u32`.
    ///
    /// # Errors
    /// [`CodecError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a little-endian `u64`.
    ///
    /// # Errors
    /// [`CodecError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes the next `len` bytes without copying them.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when fewer remain; nothing is taken then.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (field, rest) = self.bytes.split_at_checked(len).ok_or(CodecError::Truncated)?;
        self.bytes = rest;
        Ok(field)
    }

    /// Takes `N` bytes that must be zero.
    ///
    /// # Errors
    /// [`CodecError::Truncated`], or [`CodecError::ReservedNotZero`] when one is set.
    pub fn zeros<const N: usize>(&mut self) -> Result<(), CodecError> {
        if self.array::<N>()? == [0; N] { Ok(()) } else { Err(CodecError::ReservedNotZero) }
    }

    /// Returns everything that remains.
    pub fn rest(self) -> &'a [u8] {
        self.bytes
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`CodecError::Trailing`] when bytes remain.
    pub fn finish(self) -> Result<(), CodecError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(CodecError::Trailing) }
    }
}

/// Puts fields into a lent buffer, from its front. Overflow is remembered and told by [`Writer::finish`].
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
    overflowed: bool,
}

impl<'b> Writer<'b> {
    /// Starts at the front of `buffer`.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0, overflowed: false }
    }

    /// Puts `field` as it is.
    pub fn bytes(&mut self, field: &[u8]) -> &mut Self {
        match self.buffer.get_mut(self.len..).and_then(|room| room.get_mut(..field.len())) {
            Some(room) if !self.overflowed => {
                room.copy_from_slice(field);
                self.len += field.len();
            }
            _ => self.overflowed = true,
        }
        self
    }

    /// Puts one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Puts a little-endian `u16`.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Puts a little-endian `u32`.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Puts a little-endian `u64`.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Puts `N` zero bytes: a reserved field.
    pub fn zeros<const N: usize>(&mut self) -> &mut Self {
        self.bytes(&[0; N])
    }

    /// Ends the writing and returns how many bytes were put.
    ///
    /// # Errors
    /// [`CodecError::NoRoom`] when a field did not fit; the buffer then holds the fields before it.
    pub fn finish(&mut self) -> Result<usize, CodecError> {
        if self.overflowed { Err(CodecError::NoRoom) } else { Ok(self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order_and_little_endian() {
        let mut buffer = [0; 20];
        let len = Writer::new(&mut buffer).u8(1).u16(0x0302).u32(7).u64(9).zeros::<2>().bytes(b"abc").finish();
        assert_eq!(len, Ok(20));
        assert_eq!(buffer[..3], [1, 2, 3]);
        let mut reader = Reader::new(&buffer);
        assert_eq!((reader.u8(), reader.u16(), reader.u32(), reader.u64()), (Ok(1), Ok(0x0302), Ok(7), Ok(9)));
        assert_eq!(reader.zeros::<2>(), Ok(()));
        assert_eq!(reader.bytes(3), Ok(&b"abc"[..]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_field_past_the_end_is_refused_and_takes_nothing() {
        let mut reader = Reader::new(&[1, 2]);
        assert_eq!(reader.u32(), Err(CodecError::Truncated));
        assert_eq!(reader.bytes(3), Err(CodecError::Truncated));
        assert_eq!(reader.u16(), Ok(0x0201));
    }

    #[test]
    fn reserved_and_trailing_bytes_are_refused() {
        assert_eq!(Reader::new(&[0, 1]).zeros::<2>(), Err(CodecError::ReservedNotZero));
        assert_eq!(Reader::new(&[0]).finish(), Err(CodecError::Trailing));
    }

    #[test]
    fn a_field_without_room_is_told_even_when_a_smaller_one_follows() {
        let mut buffer = [0; 3];
        assert_eq!(Writer::new(&mut buffer).u16(5).u16(6).u8(7).finish(), Err(CodecError::NoRoom));
        assert_eq!(buffer, [5, 0, 0]);
    }
}
