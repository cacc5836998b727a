//! Header blocks: reading one never panics and its table stays within its size; what was read and is written again is read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_proxy::h2::hpack::decoder::Decoder;
use mesh_proxy::h2::hpack::encoder::Encoder;
use mesh_proxy::h2::hpack::huffman;
use mesh_proxy::h2::hpack::table::Meaning;
use mesh_proxy::message::name::Name;

const TABLE_BYTES: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let mut text = Vec::new();
    if huffman::decode(bytes, &mut text).is_ok() {
        let mut coded = Vec::new();
        huffman::encode(&text, &mut coded);
        assert_eq!(coded, bytes, "a text has one code");
    }
    let (mut decoder, mut again) = (Decoder::new(TABLE_BYTES), Decoder::new(TABLE_BYTES));
    let mut encoder = Encoder::default();
    // Blocks of one connection.
    for block in bytes.split(|byte| *byte == 0xfd) {
        let mut lines = Vec::new();
        let read = decoder.decode(block, |line| lines.push((line.name.to_vec(), line.value.to_vec(), line.secret)));
        assert!(decoder.table_bytes() <= TABLE_BYTES);
        if read.is_err() {
            return;
        }
        let mut written = Vec::new();
        if let [size, ..] = block {
            encoder.set_table_bytes_max(usize::from(*size) * 20);
        }
        encoder.begin(&mut written);
        for (name, value, secret) in &mut lines {
            name.make_ascii_lowercase();
            let known = match Meaning::of(name) {
                Meaning::Field(known) => known,
                _ => Name::Other,
            };
            encoder.field(known, name, value, *secret, &mut written);
        }
        let mut same = Vec::new();
        let read = again.decode(&written, |line| same.push((line.name.to_vec(), line.value.to_vec())));
        assert_eq!(read, Ok(()));
        assert!(same.iter().eq(lines.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect::<Vec<_>>().iter()));
    }
});
