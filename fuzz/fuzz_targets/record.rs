//! The plaintext of an opened transport packet, and whatever it holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2plus::router::segmentation::Run;
use p2plus::wire::control::ControlMessage;
use p2plus::wire::datagram::SessionIndex;
use p2plus::wire::ecn::Ecn;
use p2plus::wire::inner::InnerPacket;
use p2plus::wire::transport_record::{
    FLAG_NEEDS_CHECKSUM, Layer, RECORD_BUNDLE, RECORD_CONTROL, RECORD_MEASURE, RECORD_PACKET, RECORD_STREAM, Record,
    bundled_header, next_bundled,
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::decode(bytes) else { return };
    if let Record::Chunk(chunk) = record {
        let (header, fields) = chunk.encode_header();
        assert_eq!([header.as_slice(), &fields, chunk.headers, chunk.payload].concat(), bytes);
        let Some(mut run) = Run::begin(SessionIndex(1), Ecn::NotCapable, &chunk) else { return };
        let link_len = chunk.layer.link_len(run.headers()).unwrap();
        assert!(InnerPacket::parse(&run.headers()[link_len..]).is_ok());
        let packet = run.finish();
        let whole = [packet.headers(), &packet.pieces.concat()].concat();
        assert!(InnerPacket::parse(&whole[link_len..]).is_ok());
        packet.split(|packet| assert!(InnerPacket::parse(&packet[link_len..]).is_ok()));
        return;
    }
    let (header, content) = match record {
        Record::Empty => return assert!(bytes.is_empty()),
        Record::Packet { layer, needs_checksum, packet } => {
            let _ = InnerPacket::parse(packet);
            (layer.record_header(RECORD_PACKET, if needs_checksum { FLAG_NEEDS_CHECKSUM } else { 0 }), packet)
        }
        Record::Bundle(layer, content) => {
            let (mut memory, mut again) = (content.to_vec(), Vec::new());
            let mut rest = &mut memory[..];
            while let Some((needs_checksum, packet)) = next_bundled(&mut rest) {
                again.extend(bundled_header(packet.len() as u16, needs_checksum));
                again.extend_from_slice(packet);
            }
            assert_eq!(again, content);
            (layer.record_header(RECORD_BUNDLE, 0), content)
        }
        Record::Control(content) => {
            let _ = ControlMessage::decode(content);
            (Layer::Ip.record_header(RECORD_CONTROL, 0), content)
        }
        Record::Stream(content) => (Layer::Ip.record_header(RECORD_STREAM, 0), content),
        Record::Fragment(fragment) => {
            let (header, fields) = fragment.encode_header();
            return assert_eq!([header.as_slice(), &fields, fragment.bytes].concat(), bytes);
        }
        Record::Measure(id) => {
            assert_eq!(bytes[0], RECORD_MEASURE);
            return assert!(bytes[1..].starts_with(&id.to_le_bytes()));
        }
        Record::Chunk(_) => unreachable!("returned above"),
    };
    assert_eq!([header.as_slice(), content].concat(), bytes);
});
