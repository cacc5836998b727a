//! The Huffman code of RFC 7541 appendix B. Codes of one length stand in the order of their symbols, so that the lengths alone tell
//! all of them.

use std::collections::HashMap;
use std::sync::LazyLock;

/// By symbol; the last one is the end of a string, which nobody may send.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

const END: usize = 256;

/// Code and length of each symbol, and the way back.
struct Codes {
    codes: [(u32, u8); 257],
    symbols: HashMap<(u32, u8), usize>,
}

static CODES: LazyLock<Codes> = LazyLock::new(|| {
    let mut order: Vec<usize> = (0..LENGTHS.len()).collect();
    order.sort_by_key(|symbol| (LENGTHS[*symbol], *symbol));
    let (mut codes, mut next, mut length) = ([(0, 0); 257], 0u32, 0);
    for symbol in order {
        next <<= LENGTHS[symbol] - length;
        length = LENGTHS[symbol];
        codes[symbol] = (next, length);
        next += 1;
    }
    let symbols = codes.iter().enumerate().map(|(symbol, code)| (*code, symbol)).collect();
    Codes { codes, symbols }
});

/// With padding of ones.
pub fn encode(text: &[u8]) -> Vec<u8> {
    let symbols = text.iter().map(|byte| usize::from(*byte));
    pack(symbols, true)
}

/// With the end of the string within it.
pub fn encode_with_end(text: &[u8]) -> Vec<u8> {
    let symbols = text.iter().map(|byte| usize::from(*byte)).chain([END]);
    pack(symbols, true)
}

/// With padding of zeros.
pub fn encode_padded_wrong(text: &[u8]) -> Vec<u8> {
    pack(text.iter().map(|byte| usize::from(*byte)), false)
}

fn pack(symbols: impl Iterator<Item = usize>, ones: bool) -> Vec<u8> {
    let bits: Vec<bool> = symbols
        .flat_map(|symbol| {
            let (code, length) = CODES.codes[symbol];
            (0..length).rev().map(move |place| code >> place & 1 == 1)
        })
        .collect();
    let byte = |bits: &[bool]| (0..8).fold(0, |byte, at| byte << 1 | u8::from(bits.get(at).copied().unwrap_or(ones)));
    bits.chunks(8).map(byte).collect()
}

pub fn decode(coded: &[u8]) -> Result<Vec<u8>, String> {
    let (mut text, mut code, mut length) = (Vec::new(), 0u32, 0u8);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        match CODES.symbols.get(&(code, length)) {
            Some(&END) => return Err("the end of a string within it".into()),
            Some(symbol) => {
                text.push(*symbol as u8);
                (code, length) = (0, 0);
            }
            None if length > 30 => return Err("a code that is none".into()),
            None => {}
        }
    }
    if length > 7 || code != (1 << length) - 1 {
        return Err("padding that is none".into());
    }
    Ok(text)
}
