//! The Huffman code of RFC 7541 appendix B. Short codes are read by one look into a table of 256, the few long ones by a search.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use super::HpackError;

/// The longest code that the table answers.
const SHORT_BITS: u8 = 8;
/// Codes longer than that, end of string included.
const LONG_CODES: usize = 183;
/// The symbol that must never occur (RFC 7541 section 5.2).
const END_OF_STRING: u16 = 256;

/// Symbol and length of the code that a byte begins with; length 0 if it is longer.
static SHORT: [(u8, u8); 256] = short_codes();

/// Left-aligned code, symbol, and length, in order.
static LONG: [(u32, u16, u8); LONG_CODES] = long_codes();

const fn short_codes() -> [(u8, u8); 256] {
    let mut table = [(0, 0); 256];
    let mut symbol = 0;
    while symbol < 256 {
        let (code, length) = CODES[symbol];
        if length <= SHORT_BITS {
            let first = (code as usize) << (SHORT_BITS - length);
            let mut place = first;
            while place < first + (1 << (SHORT_BITS - length)) {
                table[place] = (symbol as u8, length);
                place += 1;
            }
        }
        symbol += 1;
    }
    table
}

const fn long_codes() -> [(u32, u16, u8); LONG_CODES] {
    let mut table = [(0, 0, 0); LONG_CODES];
    let (mut symbol, mut filled) = (0, 0);
    while symbol < CODES.len() {
        let (code, length) = CODES[symbol];
        if length > SHORT_BITS {
            let aligned = code << (32 - length);
            let mut place = filled;
            while place > 0 && table[place - 1].0 > aligned {
                table[place] = table[place - 1];
                place -= 1;
            }
            table[place] = (aligned, symbol as u16, length);
            filled += 1;
        }
        symbol += 1;
    }
    assert!(filled == LONG_CODES);
    table
}

/// Appends the text that `coded` stands for.
///
/// # Errors
/// Padding of more than 7 bits, padding that is not of ones, and the end-of-string symbol (RFC 7541 section 5.2).
pub fn decode(coded: &[u8], text: &mut Vec<u8>) -> Result<(), HpackError> {
    // The shortest code has 5 bits.
    text.reserve(coded.len() * 8 / 5);
    // Bits that were not read yet stand at the left.
    let (mut window, mut bits) = (0u64, 0u32);
    let mut rest = coded;
    loop {
        while bits <= 56
            && let Some((byte, behind)) = rest.split_first()
        {
            window |= u64::from(*byte) << (56 - bits);
            bits += 8;
            rest = behind;
        }
        let (mut symbol, mut length) = SHORT[(window >> 56) as usize];
        if length == 0 {
            let Some((long, long_length)) = long_symbol((window >> 32) as u32) else { break };
            if u32::from(long_length) <= bits && long == END_OF_STRING {
                return Err(HpackError::HuffmanEndOfString);
            }
            (symbol, length) = (long as u8, long_length);
        }
        if u32::from(length) > bits {
            break;
        }
        text.push(symbol);
        window <<= length;
        bits -= u32::from(length);
    }
    // What is left is the beginning of the end-of-string symbol, all ones, and shorter than a byte.
    if bits >= 8 || (bits > 0 && window >> (64 - bits) != (1 << bits) - 1) {
        return Err(HpackError::HuffmanPadding);
    }
    Ok(())
}

fn long_symbol(window: u32) -> Option<(u16, u8)> {
    let place = LONG.partition_point(|(code, _, _)| *code <= window).checked_sub(1)?;
    let (code, symbol, length) = LONG[place];
    (window >> (32 - length) == code >> (32 - length)).then_some((symbol, length))
}

/// How many bytes `text` takes when it is coded.
#[must_use]
pub fn coded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| usize::from(CODES[usize::from(*byte)].1)).sum();
    bits.div_ceil(8)
}

/// Appends `text`, coded.
pub fn encode(text: &[u8], coded: &mut Vec<u8>) {
    let (mut window, mut bits) = (0u64, 0u32);
    for byte in text {
        let (code, length) = CODES[usize::from(*byte)];
        window = window << length | u64::from(code);
        bits += u32::from(length);
        while bits >= 8 {
            bits -= 8;
            coded.push((window >> bits) as u8);
        }
    }
    if bits > 0 {
        coded.push((window << (8 - bits)) as u8 | (0xff >> bits));
    }
}

/// Code and its length in bits, by symbol.
#[rustfmt::skip]
const CODES: [(u32, u8); 257] = [
    (0x1ff8, 13), (0x7fffd8, 23), (0xfffffe2, 28), (0xfffffe3, 28), (0xfffffe4, 28), (0xfffffe5, 28), (0xfffffe6, 28),
    (0xfffffe7, 28), (0xfffffe8, 28), (0xffffea, 24), (0x3ffffffc, 30), (0xfffffe9, 28), (0xfffffea, 28),
    (0x3ffffffd, 30), (0xfffffeb, 28), (0xfffffec, 28), (0xfffffed, 28), (0xfffffee, 28), (0xfffffef, 28),
    (0xffffff0, 28), (0xffffff1, 28), (0xffffff2, 28), (0x3ffffffe, 30), (0xffffff3, 28), (0xffffff4, 28),
    (0xffffff5, 28), (0xffffff6, 28), (0xffffff7, 28), (0xffffff8, 28), (0xffffff9, 28), (0xffffffa, 28),
    (0xffffffb, 28), (0x14, 6), (0x3f8, 10), (0x3f9, 10), (0xffa, 12), (0x1ff9, 13), (0x15, 6), (0xf8, 8),
    (0x7fa, 11), (0x3fa, 10), (0x3fb, 10), (0xf9, 8), (0x7fb, 11), (0xfa, 8), (0x16, 6), (0x17, 6), (0x18, 6),
    (0x0, 5), (0x1, 5), (0x2, 5), (0x19, 6), (0x1a, 6), (0x1b, 6), (0x1c, 6), (0x1d, 6), (0x1e, 6), (0x1f, 6),
    (0x5c, 7), (0xfb, 8), (0x7ffc, 15), (0x20, 6), (0xffb, 12), (0x3fc, 10), (0x1ffa, 13), (0x21, 6), (0x5d, 7),
    (0x5e, 7), (0x5f, 7), (0x60, 7), (0x61, 7), (0x62, 7), (0x63, 7), (0x64, 7), (0x65, 7), (0x66, 7), (0x67, 7),
    (0x68, 7), (0x69, 7), (0x6a, 7), (0x6b, 7), (0x6c, 7), (0x6d, 7), (0x6e, 7), (0x6f, 7), (0x70, 7), (0x71, 7),
    (0x72, 7), (0xfc, 8), (0x73, 7), (0xfd, 8), (0x1ffb, 13), (0x7fff0, 19), (0x1ffc, 13), (0x3ffc, 14), (0x22, 6),
    (0x7ffd, 15), (0x3, 5), (0x23, 6), (0x4, 5), (0x24, 6), (0x5, 5), (0x25, 6), (0x26, 6), (0x27, 6), (0x6, 5),
    (0x74, 7), (0x75, 7), (0x28, 6), (0x29, 6), (0x2a, 6), (0x7, 5), (0x2b, 6), (0x76, 7), (0x2c, 6), (0x8, 5),
    (0x9, 5), (0x2d, 6), (0x77, 7), (0x78, 7), (0x79, 7), (0x7a, 7), (0x7b, 7), (0x7ffe, 15), (0x7fc, 11),
    (0x3ffd, 14), (0x1ffd, 13), (0xffffffc, 28), (0xfffe6, 20), (0x3fffd2, 22), (0xfffe7, 20), (0xfffe8, 20),
    (0x3fffd3, 22), (0x3fffd4, 22), (0x3fffd5, 22), (0x7fffd9, 23), (0x3fffd6, 22), (0x7fffda, 23), (0x7fffdb, 23),
    (0x7fffdc, 23), (0x7fffdd, 23), (0x7fffde, 23), (0xffffeb, 24), (0x7fffdf, 23), (0xffffec, 24), (0xffffed, 24),
    (0x3fffd7, 22), (0x7fffe0, 23), (0xffffee, 24), (0x7fffe1, 23), (0x7fffe2, 23), (0x7fffe3, 23), (0x7fffe4, 23),
    (0x1fffdc, 21), (0x3fffd8, 22), (0x7fffe5, 23), (0x3fffd9, 22), (0x7fffe6, 23), (0x7fffe7, 23), (0xffffef, 24),
    (0x3fffda, 22), (0x1fffdd, 21), (0xfffe9, 20), (0x3fffdb, 22), (0x3fffdc, 22), (0x7fffe8, 23), (0x7fffe9, 23),
    (0x1fffde, 21), (0x7fffea, 23), (0x3fffdd, 22), (0x3fffde, 22), (0xfffff0, 24), (0x1fffdf, 21), (0x3fffdf, 22),
    (0x7fffeb, 23), (0x7fffec, 23), (0x1fffe0, 21), (0x1fffe1, 21), (0x3fffe0, 22), (0x1fffe2, 21), (0x7fffed, 23),
    (0x3fffe1, 22), (0x7fffee, 23), (0x7fffef, 23), (0xfffea, 20), (0x3fffe2, 22), (0x3fffe3, 22), (0x3fffe4, 22),
    (0x7ffff0, 23), (0x3fffe5, 22), (0x3fffe6, 22), (0x7ffff1, 23), (0x3ffffe0, 26), (0x3ffffe1, 26), (0xfffeb, 20),
    (0x7fff1, 19), (0x3fffe7, 22), (0x7ffff2, 23), (0x3fffe8, 22), (0x1ffffec, 25), (0x3ffffe2, 26), (0x3ffffe3, 26),
    (0x3ffffe4, 26), (0x7ffffde, 27), (0x7ffffdf, 27), (0x3ffffe5, 26), (0xfffff1, 24), (0x1ffffed, 25),
    (0x7fff2, 19), (0x1fffe3, 21), (0x3ffffe6, 26), (0x7ffffe0, 27), (0x7ffffe1, 27), (0x3ffffe7, 26),
    (0x7ffffe2, 27), (0xfffff2, 24), (0x1fffe4, 21), (0x1fffe5, 21), (0x3ffffe8, 26), (0x3ffffe9, 26),
    (0xffffffd, 28), (0x7ffffe3, 27), (0x7ffffe4, 27), (0x7ffffe5, 27), (0xfffec, 20), (0xfffff3, 24), (0xfffed, 20),
    (0x1fffe6, 21), (0x3fffe9, 22), (0x1fffe7, 21), (0x1fffe8, 21), (0x7ffff3, 23), (0x3fffea, 22), (0x3fffeb, 22),
    (0x1ffffee, 25), (0x1ffffef, 25), (0xfffff4, 24), (0xfffff5, 24), (0x3ffffea, 26), (0x7ffff4, 23),
    (0x3ffffeb, 26), (0x7ffffe6, 27), (0x3ffffec, 26), (0x3ffffed, 26), (0x7ffffe7, 27), (0x7ffffe8, 27),
    (0x7ffffe9, 27), (0x7ffffea, 27), (0x7ffffeb, 27), (0xffffffe, 28), (0x7ffffec, 27), (0x7ffffed, 27),
    (0x7ffffee, 27), (0x7ffffef, 27), (0x7fffff0, 27), (0x3ffffee, 26), (0x3fffffff, 30),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_7541_5_2_every_byte_comes_back() {
        let mut random = fastrand::Rng::with_seed(1);
        for length in 0..600 {
            let text: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let (mut coded, mut back) = (Vec::new(), Vec::new());
            encode(&text, &mut coded);
            assert_eq!(coded.len(), coded_len(&text));
            decode(&coded, &mut back).unwrap();
            assert_eq!(back, text);
        }
    }

    #[test]
    fn rfc_7541_5_2_padding_and_end_of_string() {
        let check = |coded: &[u8], expected: Result<&str, HpackError>| {
            let mut text = Vec::new();
            assert_eq!(decode(coded, &mut text).map(|()| text.escape_ascii().to_string()), expected.map(str::to_owned));
        };
        check(&[], Ok(""));
        check(&[0b0001_1111], Ok("a"));
        // "a" and padding that is not of ones.
        check(&[0b0001_1110], Err(HpackError::HuffmanPadding));
        // Eight bits of padding and more.
        check(&[0xff], Err(HpackError::HuffmanPadding));
        check(&[0b0001_1111, 0xff], Err(HpackError::HuffmanPadding));
        check(&[0xff, 0xff, 0xff], Err(HpackError::HuffmanPadding));
        check(&[0xff, 0xff, 0xff, 0xff], Err(HpackError::HuffmanEndOfString));
        check(&[0b0001_1111, 0xff, 0xff, 0xff, 0xff, 0xff], Err(HpackError::HuffmanEndOfString));
    }
}
