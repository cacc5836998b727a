//! Chunks and trailers of a request (RFC 9112 section 7.1, RFC 9110 section 6.5).

use crate::asked::{Row, Wanted, cut, forwarded, refused, row, row_and_end};

pub fn rows() -> Vec<Row> {
    [sizes(), extensions(), line_ends(), lasts(), trailers()].into_iter().flatten().collect()
}

fn with(fields: &str, chunks: impl AsRef<[u8]>) -> Vec<u8> {
    let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{fields}\r\n");
    [head.as_bytes(), chunks.as_ref()].concat()
}

fn chunks(chunks: impl AsRef<[u8]>) -> Vec<u8> {
    with("", chunks)
}

/// One chunk under this size line.
fn under(size: &str) -> Vec<u8> {
    chunks(format!("{size}\r\nhello\r\n0\r\n\r\n"))
}

fn hello() -> Wanted {
    forwarded().target("/x").body("hello")
}

fn sizes() -> Vec<Row> {
    let ten = "0123456789";
    let mut rows = vec![
        row("9112 7.1: one chunk", under("5"), hello()),
        row("9112 7.1: two chunks", chunks("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), hello()),
        row(
            "9112 7.1: chunks of one byte",
            chunks("1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
            hello(),
        ),
        row("9112 7.1: no data", chunks("0\r\n\r\n"), forwarded().body("")),
        row("9112 7.1: a size in upper case", chunks(format!("A\r\n{ten}\r\n0\r\n\r\n")), forwarded().body(ten)),
        row("9112 7.1: a size in lower case", chunks(format!("a\r\n{ten}\r\n0\r\n\r\n")), forwarded().body(ten)),
        row("9112 7.1: a size with a leading zero", under("05"), hello()),
        row("9112 7.1: a size of sixteen digits", under("0000000000000005"), cut().or(hello())),
        row("9112 7.1: a size of a hundred digits", under(&format!("{}5", "0".repeat(99))), cut().or(hello())),
        row("9112 7.1: CRLF within data", chunks("7\r\nhel\r\nlo\r\n0\r\n\r\n"), forwarded().body("hel\r\nlo")),
        row("9112 7.1: data like a last chunk", chunks("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), forwarded().body("0\r\n\r\n")),
        row(
            "9112 7.1: a chunk of 100,000 bytes",
            chunks(format!("{:X}\r\n{}\r\n0\r\n\r\n", 100_000, "x".repeat(100_000))),
            forwarded().body(&"x".repeat(100_000)),
        ),
    ];
    for size in [
        "", " 5", "\t5", "5 ", "5\t", "+5", "-5", "0x5", "0X5", "x5", "5h", "5,", "5_0", "5.", "5 5", "g", "\"5\"",
        "\u{b}5", "5\u{b}", "5\0", "\x005", "\u{665}", "five", "5:", "5=", "5/", "=5", "5 a", "-0", "5\u{e9}",
    ] {
        rows.push(row(format!("9112 7.1: {size:?} is no chunk size"), under(size), cut()));
    }
    for size in
        ["10000000000000005", "FFFFFFFFFFFFFFFFFFFF", "80000000000000000000000000000005", "123456789abcdef01234567890"]
    {
        rows.push(row(format!("9112 7.1: a chunk size of {size} overflows"), under(size), cut().or(refused(&[413]))));
    }
    for size in
        ["100000005", "FFFFFFFF", "7FFFFFFFFFFFFFFF", "FFFFFFFFFFFFFFFF", "8000000000000005", "FFFFFFFFFFFFFFFA"]
    {
        rows.push(row_and_end(
            format!("9112 7.1: a chunk size of {size} is not 5"),
            under(size),
            cut().or(refused(&[413])),
        ));
    }
    rows
}

fn extensions() -> Vec<Row> {
    let mut rows = Vec::new();
    for size in
        ["5;a", "5;a=b", "5;a=\"b c\"", "5;a;b;c=d", "5;a=\"\\\"\"", "5;a=\";\"", "5;!#$%&'*+-.^_`|~=1", "5;a=\"\""]
    {
        rows.push(row(format!("9112 7.1.1: {size} is a chunk with an extension"), under(size), hello()));
    }
    for size in [
        "5 ;a",
        "5; a",
        "5 ; a = b",
        "5;a =b",
        "5;a= b",
        "5\t;a",
        "5;",
        "5;;",
        "5;=",
        "5;=b",
        "5;a=",
        "5;a b",
        "5;a=\"b",
        "5;a=b\"c",
        "5;a=\"b\"c",
        "5;(a)",
        "5;a=\u{e9}",
    ] {
        rows.push(row(
            format!("9112 7.1.1: the extension in {size:?} is ignored or refused"),
            under(size),
            cut().or(hello()),
        ));
    }
    for size in [
        "5;a\0",
        "5;a=\"\0\"",
        "5;a\r",
        "5;\ra",
        "5;a=\"\r\"",
        "5;a\u{b}",
        "5;a\u{7f}",
        "5;a\n",
        "5;\n",
        "5;a=\"\n\"",
        "5;a\nb",
        "5;\u{1}",
    ] {
        rows.push(row(format!("9112 7.1.1: the extension in {size:?} is none"), under(size), cut()));
    }
    let hidden = "5;\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    rows.push(row("9112 7.1.1: a bare LF in an extension hides a request", chunks(hidden), cut()));
    let long = || cut().or(refused(&[413, 431]));
    rows.push(row("9112 7.1.1: an extension of 100 bytes", under(&format!("5;{}", "a".repeat(100))), hello()));
    rows.push(row("9112 7.1.1: an extension of 100,000 bytes", under(&format!("5;{}", "a".repeat(100_000))), long()));
    rows.push(row(
        "9112 7.1.1: 200,000 bytes of extensions in all",
        chunks("1;aaaaaaaaaaaaaa\r\nx\r\n".repeat(12_500) + "0\r\n\r\n"),
        long(),
    ));
    rows
}

fn line_ends() -> Vec<Row> {
    let mut rows = Vec::new();
    for (what, body) in [
        ("a bare LF behind a size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare CR behind a size", "5\rhello\r\n0\r\n\r\n"),
        ("CR CR LF behind a size", "5\r\r\nhello\r\n0\r\n\r\n"),
        ("LF CR behind a size", "5\n\rhello\r\n0\r\n\r\n"),
        ("a bare LF behind data", "5\r\nhello\n0\r\n\r\n"),
        ("a bare CR behind data", "5\r\nhello\r0\r\n\r\n"),
        ("nothing behind data", "5\r\nhello0\r\n\r\n"),
        ("two CRLFs behind data", "5\r\nhello\r\n\r\n0\r\n\r\n"),
        ("a space behind data", "5\r\nhello \r\n0\r\n\r\n"),
        ("two bytes for a CRLF", "5\r\nhelloXX0\r\n\r\n"),
        ("CR and a byte for a CRLF", "5\r\nhello\rX0\r\n\r\n"),
        ("data longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("data much longer than its size", "1\r\nhello\r\n0\r\n\r\n"),
        ("data shorter than its size", "5\r\nhell\r\n0\r\n\r\n"),
        ("an empty line before the first size", "\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("bare LFs everywhere", "5\nhello\n0\n\n"),
        ("no chunks at all", "hello"),
        ("a body without chunks", "hello\r\n0\r\n\r\n"),
    ] {
        rows.push(row(format!("9112 7.1: {what}"), chunks(body), cut()));
    }
    rows
}

fn lasts() -> Vec<Row> {
    let last = |end: &str| chunks(format!("5\r\nhello\r\n{end}"));
    let mut rows = Vec::new();
    for end in ["0\r\n\r\n", "00\r\n\r\n", "000000\r\n\r\n", "0;a\r\n\r\n", "0;a=\"b\"\r\n\r\n"] {
        rows.push(row(format!("9112 7.1: {end:?} is the last chunk"), last(end), hello()));
    }
    for end in [
        "0\n\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\r\n\r\n",
        "0\r\n\r",
        "0\r\n",
        "0 \r\n\r\n",
        " 0\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "-0\r\n\r\n",
        "0x0\r\n\r\n",
        "+0\r\n\r\n",
        "0\0\r\n\r\n",
        "0;\0\r\n\r\n",
        "0\r\n \r\n\r\n",
        "\r\n\r\n",
    ] {
        rows.push(row(format!("9112 7.1: {end:?} is no last chunk"), last(end), cut()));
    }
    rows
}

fn trailers() -> Vec<Row> {
    let named = |lines: &str| with("Trailer: X-T\r\n", format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n"));
    let plain = |lines: &str| chunks(format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n"));
    let mut rows = vec![
        row("9112 7.1.2: a trailer that was announced is passed on", named("X-T: 1"), hello().trailer("x-t", "1")),
        row("9112 7.1.2: a trailer that was not announced", plain("X-T: 1"), hello()),
        row("9112 7.1.2: a trailer is no field", named("X-T: 1"), hello().without("x-t")),
        row(
            "9112 7.1.2: many trailers",
            plain(&(0..50).map(|n| format!("X-{n}: {n}")).collect::<Vec<_>>().join("\r\n")),
            hello(),
        ),
        row(
            "9112 7.1.2: trailers of 100,000 bytes",
            plain(&format!("X-T: {}", "v".repeat(100_000))),
            cut().or(refused(&[413, 431])),
        ),
        row("9112 7.1.2: 8,000 trailers", plain(&"X-T: v\r\n".repeat(8_000)), cut().or(refused(&[413, 431]))),
    ];
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Connection",
        "Authorization",
        "Content-Type",
        "Trailer",
        "TE",
        "Keep-Alive",
        "Upgrade",
        "Expect",
        "Cookie",
        "Content-Encoding",
        "Max-Forwards",
        "Cache-Control",
        "Range",
        "Forwarded",
        "Via",
        "X-Forwarded-For",
        "X-Forwarded-Port",
        "X_Forwarded_For",
        "X-Real-IP",
    ] {
        let value = if name == "Transfer-Encoding" { "chunked" } else { "7" };
        let lines = format!("{name}: {value}");
        let sent = with(&format!("Trailer: {name}\r\n"), format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n"));
        rows.push(row(
            format!("9110 6.5.1: {name} is no trailer"),
            sent,
            cut().or(hello().without_trailer(name).that("it is no field", |r| {
                r.fields.all("content-length").iter().all(|one| *one == "5") && r.fields.all("host") == ["a"]
            })),
        ));
    }
    for line in [
        "X-T : 1",
        "X-T\t: 1",
        ": 1",
        "X-T",
        "X T: 1",
        "X-T: 1\0",
        "X-T: 1\r2",
        "X-T\0: 1",
        " X-T: 1",
        "X-T: \u{1}",
        "X(T): 1",
        "X-T: 1\n",
        "GET / HTTP/1.1",
    ] {
        rows.push(row(format!("9112 5: {line:?} is no trailer"), plain(line), cut()));
    }
    for line in ["X-T: 1\r\n 2", "X-T: 1\nX-U: 2"] {
        rows.push(row(
            format!("9112 5.2: the trailer {line:?} is refused or made one"),
            plain(line),
            cut().or(hello()),
        ));
    }
    rows
}
