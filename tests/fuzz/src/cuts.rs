//! One input, however it arrives: what is made of it must not depend on that.

/// Arrives all at once.
pub const WHOLE: u8 = 0;
/// Arrives byte by byte.
pub const BYTES: u8 = 1;

/// How much of an input of `length` bytes has arrived after each read, up to all of it: as the seed says, in one or in single bytes, or in
/// pieces that are different each time.
pub fn ends(length: usize, seed: u8) -> impl Iterator<Item = usize> {
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    let longest = 2 + usize::from(seed >> 1);
    let mut arrived = Some(0);
    std::iter::from_fn(move || {
        let before = arrived?;
        let piece = match seed {
            WHOLE => length,
            BYTES => 1,
            _ => random.usize(1..=longest),
        };
        let end = (before + piece).min(length);
        arrived = (end < length).then_some(end);
        Some(end)
    })
}
