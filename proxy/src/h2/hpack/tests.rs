//! RFC 7541: the examples of appendix C, what must be refused, and both ends against each other.

use super::HpackError;
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::table::{DYNAMIC_START, STATIC, static_line, static_name};
use crate::message::name::Name;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<String, HpackError> {
    let mut lines = String::new();
    decoder.decode(block, |line| {
        lines += &format!("{}: {}\n", line.name.escape_ascii(), line.value.escape_ascii());
    })?;
    Ok(lines)
}

/// Blocks of one connection, each with its lines and the size of the table behind it.
fn check(table_bytes: usize, blocks: &[(&str, &str, usize)]) {
    let mut decoder = Decoder::new(table_bytes);
    for (hex, expected, table) in blocks {
        let expected: String = expected.lines().map(|line| format!("{}\n", line.trim())).collect();
        assert_eq!(decoded(&mut decoder, &bytes(hex)).as_deref(), Ok(expected.as_str()));
        assert_eq!(decoder.table_bytes(), *table, "{expected}");
    }
}

#[test]
fn rfc_7541_c_2_literals() {
    check(
        4096,
        &[("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header", 55)],
    );
    check(4096, &[("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", 0)]);
    check(4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", 0)]);
    check(4096, &[("82", ":method: GET", 0)]);
}

const REQUESTS: [(&str, usize); 3] = [
    (":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com", 57),
    (":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache", 110),
    (":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value", 164),
];

fn check_requests(blocks: [&str; 3]) {
    let rows: Vec<_> = blocks.iter().zip(REQUESTS).map(|(hex, (lines, table))| (*hex, lines, table)).collect();
    check(4096, &rows);
}

#[test]
fn rfc_7541_c_3_requests() {
    check_requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn rfc_7541_c_4_requests_with_huffman() {
    check_requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

const DATE: &str = "date: Mon, 21 Oct 2013 20:13:2";
const COOKIE: &str = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";

fn check_responses(blocks: [&str; 3]) {
    let location = "location: https://www.example.com";
    let first = format!(":status: 302\ncache-control: private\n{DATE}1 GMT\n{location}");
    let second = format!(":status: 307\ncache-control: private\n{DATE}1 GMT\n{location}");
    let third =
        format!(":status: 200\ncache-control: private\n{DATE}2 GMT\n{location}\ncontent-encoding: gzip\n{COOKIE}");
    check(256, &[(blocks[0], &first, 222), (blocks[1], &second, 222), (blocks[2], &third, 215)]);
}

#[test]
fn rfc_7541_c_5_responses_with_eviction() {
    check_responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b
         2076 6572 7369 6f6e 3d31",
    ]);
}

#[test]
fn rfc_7541_c_6_responses_with_eviction_and_huffman() {
    check_responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}

#[test]
fn what_cannot_be_read_is_refused() {
    use HpackError::*;
    let check = |hex: &str, expected: HpackError| {
        assert_eq!(decoded(&mut Decoder::new(4096), &bytes(hex)), Err(expected), "{hex}");
    };
    // Section 2.3.3, 6.1: no entry 0, none behind the last.
    check("80", UnknownIndex { index: 0 });
    check("be", UnknownIndex { index: 62 });
    check("7f00 0161", UnknownIndex { index: 63 });
    check("ff00", UnknownIndex { index: 127 });
    // Section 4.2: a change of size stands first.
    check("82 3f e1 1f", LateTableSize);
    // Section 6.3: not above what the settings say.
    check("3f e2 1f", TableTooLarge { bytes: 4097, bytes_max: 4096 });
    // Section 5.1.
    check("ff ff ff ff ff ff", IntegerOverflow);
    check("ff 80 80 80 80 00", IntegerOverflow);
    check("ff", Truncated);
    // Section 5.2.
    check("00", Truncated);
    check("00 01", Truncated);
    check("00 01 61", Truncated);
    check("00 01 61 05 62", Truncated);
    check("00 81 1e 01 62", HuffmanPadding);
    check("00 84 ff ff ff ff 01 62", HuffmanEndOfString);
}

#[test]
fn rfc_7541_4_4_an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(64);
    decoded(&mut decoder, &bytes("4001 6101 62")).unwrap();
    assert_eq!(decoder.table_bytes(), 34);
    let long = [vec![0x40, 1, b'c', 60], vec![b'd'; 60]].concat();
    decoded(&mut decoder, &long).unwrap();
    assert_eq!(decoder.table_bytes(), 0);
    assert_eq!(decoded(&mut decoder, &[0xbe]), Err(HpackError::UnknownIndex { index: 62 }));
}

#[test]
fn rfc_7541_4_4_a_new_entry_may_take_the_name_of_one_it_evicts() {
    let mut decoder = Decoder::new(40);
    decoded(&mut decoder, &bytes("4001 6101 62")).unwrap();
    assert_eq!(decoded(&mut decoder, &bytes("7e 03 63 64 65")).as_deref(), Ok("a: cde\n"));
    assert_eq!(decoded(&mut decoder, &bytes("be")).as_deref(), Ok("a: cde\n"));
    assert_eq!(decoder.table_bytes(), 36);
}

#[test]
fn every_static_name_is_found() {
    for (place, (_, name, _)) in STATIC.iter().enumerate() {
        let found = static_name(name.as_bytes()).unwrap_or_else(|| panic!("{name}"));
        assert!(found <= place + 1 && STATIC[found - 1].1 == *name, "{name}");
        assert_eq!(Line::meaning(place), super::table::Meaning::of(name.as_bytes()), "{name}");
    }
    assert_eq!(STATIC.len() + 1, DYNAMIC_START);
    assert_eq!(static_name(b"agf"), None);
}

struct Line;

impl Line {
    fn meaning(place: usize) -> super::table::Meaning {
        static_line(place + 1).unwrap().meaning
    }
}

fn encoded(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(Name::of(name.as_bytes()), name.as_bytes(), value.as_bytes(), false, &mut out);
    }
    out
}

#[test]
fn what_comes_again_becomes_one_byte() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4096));
    let fields = [("Content-Type", "text/plain"), ("X-Powered-By", "us"), ("content-length", "1024")];
    let expected = "content-type: text/plain\nx-powered-by: us\ncontent-length: 1024\n";
    for (turn, length) in [(1, 37), (2, 37), (3, 3), (4, 3)] {
        let block = encoded(&mut encoder, &fields);
        assert_eq!(decoded(&mut decoder, &block).as_deref(), Ok(expected));
        assert!(block.len() <= length, "turn {turn}: {} bytes", block.len());
    }
}

#[test]
fn rfc_7541_7_1_3_secrets_are_never_remembered() {
    let mut encoder = Encoder::default();
    for name in ["authorization", "Cookie", "set-cookie", "Proxy-Authorization", "X-Api-Key"] {
        for _ in 0..3 {
            let block = encoded(&mut encoder, &[(name, "abc")]);
            assert_eq!(block[0] & 0xf0, 0x10, "{name}");
        }
    }
    let mut out = Vec::new();
    encoder.field(Name::Other, b"x-mine", b"abc", true, &mut out);
    assert_eq!(out[0], 0x10);
}

#[test]
fn rfc_7541_4_2_changes_of_size_are_told() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4096));
    for _ in 0..3 {
        let block = encoded(&mut encoder, &[("x-a", "b")]);
        decoded(&mut decoder, &block).unwrap();
    }
    encoder.set_table_bytes_max(0);
    encoder.set_table_bytes_max(1 << 20);
    let block = encoded(&mut encoder, &[("x-a", "b")]);
    assert_eq!(block[..4], [0x20, 0x3f, 0xe1, 0x1f], "down to 0, and up to 4096");
    assert_eq!(decoded(&mut decoder, &block).as_deref(), Ok("x-a: b\n"));
    encoder.set_table_bytes_max(0);
    for _ in 0..3 {
        let block = encoded(&mut encoder, &[("x-a", "b")]);
        assert_eq!(decoded(&mut decoder, &block).as_deref(), Ok("x-a: b\n"));
    }
    assert_eq!(decoder.table_bytes(), 0);
}

#[test]
fn both_ends_stay_in_step_over_many_heads() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new(4096));
        for _ in 0..500 {
            if random.u8(..) < 5 {
                encoder.set_table_bytes_max(random.usize(..5000));
            }
            let fields: Vec<(String, String)> = (0..random.usize(..12))
                .map(|_| {
                    let name = format!("n{}", "x".repeat(random.usize(..30)));
                    let value = "v".repeat(random.usize(..300)) + &random.u8(..20).to_string();
                    (name, value)
                })
                .collect();
            let borrowed: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let block = encoded(&mut encoder, &borrowed);
            let expected: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            assert_eq!(decoded(&mut decoder, &block).as_deref(), Ok(expected.as_str()), "seed {seed}");
        }
    }
}
