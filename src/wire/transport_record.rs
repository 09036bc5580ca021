//! The records inside a transport packet, once the session opened it: packets and frames, whole, cut or bundled, and what the nodes tell each
//! other.
//!
//! Owns their kinds, flags and fields (docs/protocol.md, "Transport packets"). Refuses to know what a packet or a frame says.

use super::codec::{CodecError, Reader, Writer};
use super::frame::{Frame, MAX_LINK_HEADER, SegmentNumber};
use super::offload::MAX_PLAIN_HEADERS;

/// Bytes in front of a record's content: its kind (low 4 bits) and flags (high 4 bits).
pub const RECORD_HEADER_LEN: usize = 1;
/// Bytes in front of the content of a record of frames: kind, flags, and the number of their segment.
pub const FRAME_RECORD_HEADER_LEN: usize = RECORD_HEADER_LEN + 4;
/// The bits of a record's first byte that say its kind.
pub const KIND_MASK: u8 = 0x0f;
/// First byte of an IP packet's record, without flags.
pub const RECORD_PACKET: u8 = 0;
/// First byte of a super-packet's chunk.
pub const RECORD_CHUNK: u8 = 1;
/// First byte of a bundle of small packets.
pub const RECORD_BUNDLE: u8 = 2;
/// First byte of a control record.
pub const RECORD_CONTROL: u8 = 3;
/// First byte of a packet of the control link.
pub const RECORD_STREAM: u8 = 4;
/// First byte of a frame's record, and what the kind of an IP packet's record differs by from that of a frame.
pub const RECORD_FRAME: u8 = 5;
/// First byte of a chunk of a frame that is a super-packet.
pub const RECORD_FRAME_CHUNK: u8 = RECORD_FRAME + RECORD_CHUNK;
/// First byte of a bundle of small frames.
pub const RECORD_FRAME_BUNDLE: u8 = RECORD_FRAME + RECORD_BUNDLE;
/// First byte of a measure: a datagram that is as long as it is to see whether so much passes.
pub const RECORD_MEASURE: u8 = 8;
/// First byte of a part of an IP packet that is longer than a datagram.
pub const RECORD_FRAGMENT: u8 = 9;
/// First byte of a part of a frame that is longer than a datagram.
pub const RECORD_FRAME_FRAGMENT: u8 = RECORD_FRAME + RECORD_FRAGMENT;
/// Flag of a packet: its transport checksum holds only the pseudo-header's sum and is completed by the receiver.
pub const FLAG_NEEDS_CHECKSUM: u8 = 0x10;
/// Flag of a chunk: its super-packet ends with it.
pub const FLAG_LAST_CHUNK: u8 = 0x10;
/// Bytes in front of each packet in a bundle: `length u16 | flags u8`.
pub const BUNDLED_HEADER_LEN: usize = 3;
/// Bytes in front of a chunk's headers, behind the record's own header.
pub const CHUNK_FIELDS_LEN: usize = 7;
/// Bytes in front of a fragment's content, behind the record's own header.
pub const FRAGMENT_FIELDS_LEN: usize = 4;
/// Bytes of a measure that say something: its kind and its id. The rest is zeros.
pub const MEASURE_LEN: usize = RECORD_HEADER_LEN + 8;
/// Flag of a fragment: its packet or frame ends with it.
pub const FLAG_LAST_FRAGMENT: u8 = 0x10;
/// Payload bytes of a segment at least: fewer would make the receiver's kernel cut a packet into thousands.
pub const MIN_SEGMENT_LEN: u16 = 536;
/// Payload bytes of a super-packet at most: with its headers it is one packet of IP.
pub const MAX_SUPER_PAYLOAD: usize = u16::MAX as usize - MAX_PLAIN_HEADERS;

/// The longest frame that travels, in bytes: that of a link of MTU 9216 with all its tags.
pub const MAX_FRAME_LEN: usize = 9216 + MAX_LINK_HEADER;

/// What hosts are given: packets of IP, or the frames of one of the network's segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Layer {
    /// IP packets.
    Ip,
    /// Ethernet frames of this segment.
    Link(SegmentNumber),
}

impl Layer {
    /// Returns the bytes that a record has in front of its content.
    pub const fn record_header_len(self) -> usize {
        match self {
            Self::Ip => RECORD_HEADER_LEN,
            Self::Link(_) => FRAME_RECORD_HEADER_LEN,
        }
    }

    /// Makes what a record has in front of its content; `kind` is that of IP packets.
    pub fn record_header(self, kind: u8, flags: u8) -> RecordHeader {
        let mut bytes = [kind | flags, 0, 0, 0, 0];
        if let Self::Link(segment) = self {
            bytes[0] += RECORD_FRAME;
            bytes[1..].copy_from_slice(&segment.0.to_le_bytes());
        }
        RecordHeader { bytes, len: self.record_header_len() }
    }

    /// Returns how many bytes stand in front of the IP packet in `bytes`: none, or a frame's link header. `None` when there is no such packet.
    pub fn link_len(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Ip => Some(0),
            Self::Link(_) => Frame::parse(bytes).ok().filter(Frame::carries_ip).map(|frame| frame.link_len),
        }
    }

    /// Reads which segment's frames follow.
    fn of_frames(reader: &mut Reader<'_>) -> Result<Self, RecordError> {
        reader.u32().map(|number| Self::Link(SegmentNumber(number))).map_err(|_| RecordError::BadFrame)
    }
}

/// What a record has in front of its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    bytes: [u8; FRAME_RECORD_HEADER_LEN],
    len: usize,
}

impl RecordHeader {
    /// Lends the bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What an opened transport packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// Nothing: a key confirmation (D3 and its answer) or a keepalive.
    Empty,
    /// One IP packet, or one frame.
    Packet {
        /// Which of the two.
        layer: Layer,
        /// The receiver completes the transport checksum.
        needs_checksum: bool,
        /// The packet.
        packet: &'a [u8],
    },
    /// Segments of a super-packet.
    Chunk(Chunk<'a>),
    /// Several IP packets, or frames of one segment, one after the other: [`next_bundled`] takes them out.
    Bundle(Layer, &'a [u8]),
    /// A part of an IP packet, or of a frame.
    Fragment(Fragment<'a>),
    /// A probe as long as it is; a pong that repeats its id answers it.
    Measure(u64),
    /// A probe, pong, list of candidates, gossip and the like.
    Control(&'a [u8]),
    /// One IP packet of the control link.
    Stream(&'a [u8]),
}

/// A part of a super-packet, behind the record's header: `header length u8 | super-packet u16 | offset u16 | segment length u16 | headers | payload`.
///
/// The headers are those of the whole, so that each chunk can be delivered without the others. Its payload is whole segments, but for the
/// last of the super-packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'a> {
    /// What the super-packet is: a packet, or a frame of a segment.
    pub layer: Layer,
    /// The super-packet ends with it.
    pub is_last: bool,
    /// Which super-packet of its sender; the numbers come again after 65,536.
    pub super_packet: u16,
    /// Payload bytes of the super-packet in front of it.
    pub offset: u16,
    /// Payload bytes of each segment, but for the last.
    pub segment_len: u16,
    /// IP and transport header of the whole, behind the link header of a frame.
    pub headers: &'a [u8],
    /// Its part of the payload.
    pub payload: &'a [u8],
}

impl<'a> Chunk<'a> {
    fn decode(layer: Layer, flags: u8, mut reader: Reader<'a>) -> Result<Self, RecordError> {
        if flags & !FLAG_LAST_CHUNK != 0 {
            return Err(RecordError::UnknownFlags(flags));
        }
        let mut read = || {
            let header_len = usize::from(reader.u8()?);
            let (super_packet, offset, segment_len) = (reader.u16()?, reader.u16()?, reader.u16()?);
            let (headers, payload) = (reader.bytes(header_len)?, reader.rest());
            Ok::<_, CodecError>(Self {
                layer,
                is_last: flags != 0,
                super_packet,
                offset,
                segment_len,
                headers,
                payload,
            })
        };
        let chunk = read().map_err(|_| RecordError::BadChunk)?;
        let segment_len = usize::from(chunk.segment_len);
        let is_whole = chunk.payload.len() % segment_len.max(1) == 0 || chunk.is_last;
        let is_good = chunk.segment_len >= MIN_SEGMENT_LEN
            && usize::from(chunk.offset) % segment_len == 0
            && !chunk.payload.is_empty()
            && is_whole
            && usize::from(chunk.offset) + chunk.payload.len() <= MAX_SUPER_PAYLOAD;
        if is_good { Ok(chunk) } else { Err(RecordError::BadChunk) }
    }

    /// Returns the record's header, and what stands between that and the headers.
    pub fn encode_header(&self) -> (RecordHeader, [u8; CHUNK_FIELDS_LEN]) {
        let mut fields = [0; CHUNK_FIELDS_LEN];
        let header_len = u8::try_from(self.headers.len()).expect("at most MAX_LINK_HEADER and MAX_PLAIN_HEADERS");
        Writer::new(&mut fields)
            .u8(header_len)
            .u16(self.super_packet)
            .u16(self.offset)
            .u16(self.segment_len)
            .finish()
            .expect("1 + 2 + 2 + 2 = 7");
        (self.layer.record_header(RECORD_CHUNK, if self.is_last { FLAG_LAST_CHUNK } else { 0 }), fields)
    }
}

/// A part of a packet or frame that is longer than a datagram to this peer may be, behind the record's header: `number u16 | offset u16 |
/// bytes`.
///
/// All checksums are done: the whole is put together and delivered as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment<'a> {
    /// What the whole is: a packet, or a frame of a segment.
    pub layer: Layer,
    /// The whole ends with it.
    pub is_last: bool,
    /// Which packet or frame of its sender; the numbers come again after 65,536.
    pub number: u16,
    /// Bytes of the whole in front of it.
    pub offset: u16,
    /// Its part.
    pub bytes: &'a [u8],
}

impl<'a> Fragment<'a> {
    fn decode(layer: Layer, flags: u8, mut reader: Reader<'a>) -> Result<Self, RecordError> {
        if flags & !FLAG_LAST_FRAGMENT != 0 {
            return Err(RecordError::UnknownFlags(flags));
        }
        let (number, offset) = match (reader.u16(), reader.u16()) {
            (Ok(number), Ok(offset)) => (number, offset),
            _ => return Err(RecordError::BadFrame),
        };
        let bytes = reader.rest();
        let is_good = !bytes.is_empty() && usize::from(offset) + bytes.len() <= MAX_FRAME_LEN;
        let fragment = Self { layer, is_last: flags != 0, number, offset, bytes };
        if is_good { Ok(fragment) } else { Err(RecordError::BadFrame) }
    }

    /// Cuts a packet or frame into parts whose records have no more than `room` bytes behind their header, of one length but for the last, so that they
    /// leave as one train.
    pub fn cut(layer: Layer, number: u16, bytes: &'a [u8], room: usize) -> impl Iterator<Item = Self> {
        let room = room.saturating_sub(FRAGMENT_FIELDS_LEN).max(1);
        let step = bytes.len().div_ceil(bytes.len().div_ceil(room).max(1)).max(1);
        bytes.chunks(step).enumerate().map(move |(place, part)| {
            let offset = place * step;
            let is_last = offset + part.len() == bytes.len();
            Self { layer, is_last, number, offset: offset as u16, bytes: part }
        })
    }

    /// Returns the record's header, and what stands between that and the bytes.
    pub fn encode_header(&self) -> (RecordHeader, [u8; FRAGMENT_FIELDS_LEN]) {
        let mut fields = [0; FRAGMENT_FIELDS_LEN];
        Writer::new(&mut fields).u16(self.number).u16(self.offset).finish().expect("2 + 2 = 4");
        let flags = if self.is_last { FLAG_LAST_FRAGMENT } else { 0 };
        (self.layer.record_header(RECORD_FRAGMENT, flags), fields)
    }
}

/// Takes the first packet off a bundle that [`Record::decode`] accepted, with the word on its checksum; `None` at the end.
pub fn next_bundled<'b>(bundle: &mut &'b mut [u8]) -> Option<(bool, &'b mut [u8])> {
    let (header, rest) = std::mem::take(bundle).split_first_chunk_mut::<BUNDLED_HEADER_LEN>()?;
    let [low, high, flags] = *header;
    let (packet, rest) = rest.split_at_mut_checked(u16::from_le_bytes([low, high]).into())?;
    *bundle = rest;
    Some((flags != 0, packet))
}

/// Returns what stands in front of a packet of `len` bytes in a bundle.
pub fn bundled_header(len: u16, needs_checksum: bool) -> [u8; BUNDLED_HEADER_LEN] {
    let [low, high] = len.to_le_bytes();
    [low, high, if needs_checksum { FLAG_NEEDS_CHECKSUM } else { 0 }]
}

/// Says whether a bundle is one or more packets, each whole and with known flags, and nothing else.
fn is_bundle(mut rest: &[u8]) -> bool {
    let is_some = !rest.is_empty();
    while let Some((&[low, high, flags], behind)) = rest.split_first_chunk() {
        match behind.split_at_checked(u16::from_le_bytes([low, high]).into()) {
            Some((_, behind)) if flags & !FLAG_NEEDS_CHECKSUM == 0 => rest = behind,
            _ => return false,
        }
    }
    is_some && rest.is_empty()
}

/// An authenticated packet whose content is not understood: the sender is newer, or at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A kind that this version does not carry.
    #[error("the record's kind {0} is not carried here")]
    UnknownKind(u8),
    /// A flag that the kind does not have.
    #[error("the record's flags {0:#04x} are unknown")]
    UnknownFlags(u8),
    /// A chunk that contradicts itself.
    #[error("the chunk is malformed")]
    BadChunk,
    /// A bundle that is not whole packets alone.
    #[error("the bundle is malformed")]
    BadBundle,
    /// A frame without its segment, or a part of one, or of a packet, that contradicts itself.
    #[error("the frame's record is malformed")]
    BadFrame,
    /// A measure without its id.
    #[error("the measure is malformed")]
    BadMeasure,
}

impl<'a> Record<'a> {
    /// Reads an opened transport packet.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(plaintext: &'a [u8]) -> Result<Self, RecordError> {
        let Some((&first, content)) = plaintext.split_first() else { return Ok(Self::Empty) };
        let (flags, mut reader) = (first & !KIND_MASK, Reader::new(content));
        let kind = first & KIND_MASK;
        let layer = match kind {
            RECORD_FRAME..=RECORD_FRAME_BUNDLE | RECORD_FRAME_FRAGMENT => Layer::of_frames(&mut reader)?,
            _ => Layer::Ip,
        };
        match (kind, layer) {
            (RECORD_PACKET | RECORD_FRAME, _) if flags & !FLAG_NEEDS_CHECKSUM == 0 => {
                Ok(Self::Packet { layer, needs_checksum: flags != 0, packet: reader.rest() })
            }
            (RECORD_CHUNK | RECORD_FRAME_CHUNK, _) => Chunk::decode(layer, flags, reader).map(Self::Chunk),
            (RECORD_BUNDLE | RECORD_FRAME_BUNDLE, _) if flags == 0 => {
                let packets = reader.rest();
                if is_bundle(packets) { Ok(Self::Bundle(layer, packets)) } else { Err(RecordError::BadBundle) }
            }
            (RECORD_FRAGMENT | RECORD_FRAME_FRAGMENT, _) => Fragment::decode(layer, flags, reader).map(Self::Fragment),
            (RECORD_MEASURE, _) if flags == 0 => reader.u64().map(Self::Measure).map_err(|_| RecordError::BadMeasure),
            (RECORD_CONTROL, _) if flags == 0 => Ok(Self::Control(content)),
            (RECORD_STREAM, _) if flags == 0 => Ok(Self::Stream(content)),
            (RECORD_PACKET..=RECORD_MEASURE, _) => Err(RecordError::UnknownFlags(flags)),
            (kind, _) => Err(RecordError::UnknownKind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_first_byte() {
        assert_eq!(Record::decode(&[]), Ok(Record::Empty));
        assert_eq!(
            Record::decode(&[0x10, 9]),
            Ok(Record::Packet { layer: Layer::Ip, needs_checksum: true, packet: &[9] })
        );
        assert_eq!(Record::decode(&[3, 9]), Ok(Record::Control(&[9])));
        assert_eq!(Record::decode(&[4]), Ok(Record::Stream(&[])));
        assert_eq!(Record::decode(&[8, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0]), Ok(Record::Measure(0x0200_0000_0000_0001)));
        assert_eq!(Record::decode(&[8, 1, 0, 0, 0, 0, 0, 0]), Err(RecordError::BadMeasure));
        assert_eq!(Record::decode(&[0x18, 1, 0, 0, 0, 0, 0, 0, 2]), Err(RecordError::UnknownFlags(0x10)));
        assert_eq!(Record::decode(&[10, 9]), Err(RecordError::UnknownKind(10)));
        assert_eq!(Record::decode(&[0x20]), Err(RecordError::UnknownFlags(0x20)));
        assert_eq!(Record::decode(&[0x13]), Err(RecordError::UnknownFlags(0x10)));
    }

    #[test]
    fn a_bundle_is_whole_packets_and_nothing_else() {
        let packets: [(bool, &[u8]); 3] = [(false, b"one"), (true, b""), (true, b"three")];
        let mut bytes = vec![RECORD_BUNDLE];
        for (needs_checksum, packet) in packets {
            bytes.extend(bundled_header(packet.len() as u16, needs_checksum));
            bytes.extend(packet);
        }
        assert_eq!(bytes, b"\x02\x03\0\0one\0\0\x10\x05\0\x10three");
        let Ok(Record::Bundle(Layer::Ip, content)) = Record::decode(&bytes) else { panic!("no bundle") };
        let (mut content, mut seen) = (content.to_vec(), Vec::new());
        let mut rest = &mut content[..];
        while let Some((needs_checksum, packet)) = next_bundled(&mut rest) {
            seen.push((needs_checksum, packet.to_vec()));
        }
        assert_eq!(seen, packets.map(|(needs_checksum, packet)| (needs_checksum, packet.to_vec())));
        let ends = [1 + 6, 1 + 6 + 3, bytes.len()];
        for len in 1..bytes.len() {
            let expected = if ends.contains(&len) { None } else { Some(RecordError::BadBundle) };
            assert_eq!(Record::decode(&bytes[..len]).err(), expected, "{len}");
        }
        bytes[3] = 0x20;
        assert_eq!(Record::decode(&bytes), Err(RecordError::BadBundle), "an unknown flag");
        assert_eq!(Record::decode(&[0x12]), Err(RecordError::UnknownFlags(0x10)));
    }

    #[test]
    fn a_chunk_has_the_bytes_of_the_document_and_contradicts_nothing() {
        let (headers, payload) = ([0x45; 40], [7; 1000]);
        let chunk = Chunk {
            layer: Layer::Ip,
            is_last: true,
            super_packet: 0x0201,
            offset: 1200,
            segment_len: 600,
            headers: &headers,
            payload: &payload,
        };
        let encode = |chunk: &Chunk<'_>| {
            let (header, fields) = chunk.encode_header();
            [header.as_slice(), &fields, chunk.headers, chunk.payload].concat()
        };
        let bytes = encode(&chunk);
        assert_eq!(bytes[..9], [0x11, 40, 1, 2, 0xb0, 4, 0x58, 2, 0x45]);
        assert_eq!(Record::decode(&bytes), Ok(Record::Chunk(chunk)));
        let framed = Chunk { layer: Layer::Link(SEGMENT), ..chunk };
        assert_eq!(encode(&framed)[..13], [0x16, 4, 3, 2, 1, 40, 1, 2, 0xb0, 4, 0x58, 2, 0x45]);
        assert_eq!(Record::decode(&encode(&framed)), Ok(Record::Chunk(framed)));
        let refused = |at: usize, byte| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            Record::decode(&bytes).is_err()
        };
        assert!(refused(0, 0x31), "an unknown flag");
        assert!(refused(0, 0x01), "two thirds of a segment in the middle");
        assert!(refused(4, 0xb1), "an offset within a segment");
        assert!(refused(7, 0), "segments of 88 bytes");
        assert!(refused(5, 0xff), "beyond a packet of IP");
        assert!((1..8 + 40 + 1).all(|len| Record::decode(&bytes[..len]).is_err()), "cut short");
    }

    const SEGMENT: SegmentNumber = SegmentNumber(0x0102_0304);

    #[test]
    fn frames_name_their_segment_and_are_else_as_packets_are() {
        let layer = Layer::Link(SEGMENT);
        let header = layer.record_header(RECORD_PACKET, FLAG_NEEDS_CHECKSUM);
        assert_eq!(header.as_slice(), [0x15, 4, 3, 2, 1]);
        let record = [header.as_slice(), b"frame"].concat();
        assert_eq!(Record::decode(&record), Ok(Record::Packet { layer, needs_checksum: true, packet: b"frame" }));
        let bundle = [layer.record_header(RECORD_BUNDLE, 0).as_slice(), b"\x03\0\x10one"].concat();
        assert_eq!(bundle[0], RECORD_FRAME_BUNDLE);
        assert_eq!(Record::decode(&bundle), Ok(Record::Bundle(layer, &bundle[5..])));
        for kind in [RECORD_FRAME, RECORD_FRAME_CHUNK, RECORD_FRAME_BUNDLE, RECORD_FRAME_FRAGMENT] {
            let short = [kind, 0, 0, 0];
            assert!((1..=4).all(|len| Record::decode(&short[..len]) == Err(RecordError::BadFrame)), "{kind}");
            let flagged = [kind | 0x20, 0, 0, 0, 0, 9, 9, 9, 9, 9];
            assert_eq!(Record::decode(&flagged), Err(RecordError::UnknownFlags(0x20)), "{kind}");
        }
    }

    #[test]
    fn a_frame_is_cut_into_parts_of_one_length_that_fit_and_are_all_of_it() {
        let frame: Vec<u8> = (0..1_514u32).map(|byte| byte as u8).collect();
        for (room, expected) in
            [(1_435, vec![757, 757]), (1_000, vec![757, 757]), (758, vec![505, 505, 504]), (2_000, vec![1_514])]
        {
            let parts: Vec<_> = Fragment::cut(Layer::Link(SEGMENT), 7, &frame, room).collect();
            assert_eq!(parts.iter().map(|part| part.bytes.len()).collect::<Vec<_>>(), expected, "{room}");
            assert_eq!(parts.iter().map(|part| part.bytes).collect::<Vec<_>>().concat(), frame);
            assert!(parts.iter().all(|part| part.bytes.len() + FRAGMENT_FIELDS_LEN <= room));
            let last: Vec<_> = parts.iter().map(|part| part.is_last).collect();
            assert!(last.iter().rev().skip(1).all(|is_last| !is_last) && last.last() == Some(&true));
            assert_eq!(parts.last().map(|part| usize::from(part.offset) + part.bytes.len()), Some(frame.len()));
        }
    }

    #[test]
    fn a_fragment_has_the_bytes_of_the_document_and_stays_within_the_longest_frame() {
        let bytes = [7; 100];
        let offset = (MAX_FRAME_LEN - bytes.len()) as u16;
        let fragment = Fragment { layer: Layer::Link(SEGMENT), is_last: true, number: 0x0605, offset, bytes: &bytes };
        let (header, fields) = fragment.encode_header();
        let record = [header.as_slice(), &fields, &bytes].concat();
        assert_eq!(record[..7], [0x1e, 4, 3, 2, 1, 5, 6]);
        assert_eq!(Record::decode(&record), Ok(Record::Fragment(fragment)));
        assert_eq!(Record::decode(&[&record[..], &[7]].concat()), Err(RecordError::BadFrame), "too long");
        assert_eq!(Record::decode(&record[..9]), Err(RecordError::BadFrame), "nothing in it");
    }
}
