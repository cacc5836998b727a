//! "Did you mean": the known word nearest to one nobody knows.

/// The nearest of `known`, when it is near enough to be meant: a third of its letters may be wrong, and one in any case. What both
/// have in front of a common dot (`mesh.`) tells nothing.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let (distance, best) =
        known.into_iter().map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate)).min()?;
    let own = common_parts(&word, best);
    (distance <= 1.max(word[own..].chars().count() / 3)).then_some(best)
}

/// How long the dotted parts are that both begin with.
fn common_parts(one: &str, other: &str) -> usize {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b);
    same.enumerate().filter(|(_, (byte, _))| *byte == b'.').map(|(at, _)| at + 1).last().unwrap_or(0)
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
        check("foo", None);
        check("l", Some("lb"));
    }

    #[test]
    fn what_both_begin_with_makes_nothing_nearer() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(nearest(word, ["mesh.lb", "mesh.weight", "mesh.ports.http.port"]), expected, "{word}");
        };
        check("mesh.foo", None);
        check("mesh.wieght", Some("mesh.weight"));
        check("mesh.ports.http.prot", Some("mesh.ports.http.port"));
        check("mehs.lb", Some("mesh.lb"));
    }
}
