//! What the transport ciphers cost: sealing and opening a small packet, one of a tunnel's size, a large one. `cargo bench --bench aead`.
//!
//! With `--no-default-features --features pure-rust` in front of the name it is the pure-Rust ciphers, with `--features null-cipher` none.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use p2plus::crypto::aead::{TransportAead, TransportCipher};
use p2plus::crypto::secret::Secret;
use std::hint::black_box;

const NONCE: [u8; 12] = [1; 12];

/// Packets that are opened between two looks at the clock: each opens once, because it is opened in place.
const ROW: u64 = 64;

fn transport(criterion: &mut Criterion) {
    for (cipher, name) in
        [(TransportCipher::Aes256Gcm, "aes-256-gcm"), (TransportCipher::ChaCha20Poly1305, "chacha20-poly1305")]
    {
        let key = TransportAead::new(cipher, &Secret::new([7; 32]));
        for len in [64, 1400, 16 << 10] {
            let mut group = criterion.benchmark_group(format!("{name}/{len} B"));
            group.throughput(Throughput::Bytes(len as u64));
            let mut text = vec![0; len];
            group.bench_function("seal", |bencher| {
                // The same nonce again and again: nothing of this leaves the process.
                bencher.iter(|| key.seal(black_box(NONCE), black_box(&mut text)));
            });
            let tag = key.seal(NONCE, &mut text);
            let sealed = [&text[..], &tag].concat();
            group.bench_function("open", |bencher| {
                let open = |sealed: &mut Vec<u8>| assert!(key.open(NONCE, black_box(sealed)).is_ok());
                bencher.iter_batched_ref(|| sealed.clone(), open, BatchSize::NumIterations(ROW));
            });
            group.finish();
        }
    }
}

criterion_group!(benches, transport);
criterion_main!(benches);
