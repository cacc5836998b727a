//! "Did you mean": the known word nearest to one nobody knows.

/// The nearest of `known`, when it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let (distance, best) =
        known.into_iter().map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate)).min()?;
    (distance <= 1 + word.len() / 4).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn typos_find_their_word_and_nonsense_finds_none() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(nearest(word, ["timeout", "retry", "endpoints", "lb"]), expected, "{word}");
        };
        check("timout", Some("timeout"));
        check("endpoint", Some("endpoints"));
        check("Retry", Some("retry"));
        check("certificate", None);
    }
}
