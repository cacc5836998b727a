use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 256, fields_max: 4 };

/// What a body turns out to be, given in pieces of `piece` bytes.
fn read(input: &[u8], piece: usize) -> Result<(Vec<u8>, Option<Fields>, usize), String> {
    let (mut chunked, mut data, mut used, mut given) = (Chunked::default(), Vec::new(), 0, 0);
    loop {
        match chunked.step(&input[used..given], LIMITS).map_err(|bad| bad.to_string())? {
            Step::More { skip } => {
                used += skip;
                if given == input.len() {
                    return Err("cut".to_owned());
                }
                given = (given + piece).min(input.len());
            }
            Step::Data { skip, length } => {
                assert!(length > 0, "data is never empty");
                data.extend_from_slice(&input[used + skip..][..length]);
                used += skip + length;
            }
            Step::End { skip, trailers } => {
                assert!(chunked.is_over());
                return Ok((data, trailers, used + skip));
            }
        }
    }
}

#[track_caller]
fn check(input: &str, expected: Option<&str>) {
    for piece in [1, 2, 3, 7, input.len().max(1)] {
        let got = read(input.as_bytes(), piece);
        match (expected, &got) {
            (Some(data), Ok((found, _, used))) => {
                assert_eq!(
                    (String::from_utf8_lossy(found).as_ref(), *used),
                    (data, input.len()),
                    "{input:?} by {piece}"
                );
            }
            (None, Err(_)) => {}
            _ => panic!("{input:?} by {piece}: {got:?}"),
        }
    }
}

#[test]
fn what_the_grammar_allows() {
    check("0\r\n\r\n", Some(""));
    check("3\r\nabc\r\n0\r\n\r\n", Some("abc"));
    check("003\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n", Some("abc0123456789"));
    check("3;a=b;c;d=\"e;\\\"f\" ; g = h\r\nabc\r\n0;x\r\n\r\n", Some("abc"));
    check("3\r\n\r\n\r\r\n0\r\nA: b\r\nC: d\r\n\r\n", Some("\r\n\r"));
}

#[test]
fn what_it_does_not() {
    for bad in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\nx\r\n",
        "0x1\r\nx\r\n",
        " 1\r\nx\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\nx\n0\n\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "2\r\nx\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "1;\r\nx\r\n0\r\n\r\n",
        "1;a=\r\nx\r\n",
        "1;a=\"b\r\nx\r\n",
        "1;a\rb\r\nx\r\n",
        "1;\0\r\nx\r\n",
        "1;a b\r\nx\r\n",
        "fffffffffffffffff\r\n",
        "8000000000000000\r\n",
        "1_0\r\n",
        "0\r\n\n",
        "0\r\nA b\r\n\r\n",
        "0\r\n A: b\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: b\rc\r\n\r\n",
        "3\r\nab",
        "0\r\nA: b\r\n",
        "\u{6e9}\r\n",
    ] {
        check(bad, None);
    }
}

#[test]
fn what_is_wrong_is_told_before_the_line_ends() {
    let long = format!("1;{}", "a".repeat(2000));
    for bad in ["1x", "1x\r", "x", &long, &format!("{long}\r")] {
        assert_ne!(read(bad.as_bytes(), 4096).unwrap_err(), "cut", "{bad:?}");
    }
    for fine in ["", "1", "1;", "1 ", "1\r", "1;a\r"] {
        assert_eq!(read(fine.as_bytes(), 4096).unwrap_err(), "cut", "{fine:?}");
    }
}

#[test]
fn trailers_without_what_may_not_trail() {
    let (_, trailers, _) = read(b"0\r\nHost: a\r\nX-Sum: 1\r\ncontent-length: 5\r\n\r\n", 5).unwrap();
    assert_eq!(format!("{:?}", trailers.unwrap()), "[X-Sum: 1]");
    let (_, trailers, _) = read(b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 64).unwrap();
    assert!(trailers.is_none());
}

#[test]
fn nothing_of_it_grows_without_end() {
    let refused = |input: &[u8]| read(input, 512).unwrap_err();
    let long = [b"1;".as_slice(), &[b'a'; 2000]].concat();
    assert!(refused(&long).contains("too long"));
    let many = [b"1;".as_slice(), &[b'a'; 1000], b"\r\nx\r\n"].concat().repeat(20);
    assert!(refused(&many).contains("too many"));
    let trailers = [b"0\r\na: ".as_slice(), &[b'a'; 300]].concat();
    assert!(refused(&trailers).contains("larger"));
    let whole = [trailers.as_slice(), b"\r\n\r\n"].concat();
    for piece in [1, 512] {
        assert!(read(&whole, piece).unwrap_err().contains("larger"), "by {piece}");
    }
    assert!(refused(b"0\r\na: 1\r\na: 2\r\na: 3\r\na: 4\r\na: 5\r\n\r\n").contains("more than 4"));
}
