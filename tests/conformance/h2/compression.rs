//! Header blocks in all their forms (RFC 7541).

use super::client::{Client, get};
use super::frame::{code, flag, headers, setting};
use super::hpack::{self, bytes, coded, huffman, indexed, integer, line, never, plain, remembered, resized};
use super::huffman;
use super::table::{Row, Scenario, Wanted, answered, asked, connection, row};
use crate::world::World;

pub fn rows() -> Vec<Row> {
    [forms(), huffman_rows(), tables(), broken(), integers()].into_iter().flatten().collect()
}

pub const SCENARIOS: &[Scenario] = &[
    ("7541 2.3.2: entries are found again under their numbers", entries),
    ("7541 4.4: the oldest entries go first", evicted),
    ("7541 4.4: an entry larger than the table empties it", too_large_an_entry),
    ("7541 4.3: a smaller table forgets, a larger one remembers", resizing),
    ("7541 2.2: a refused request's entries are remembered", of_refused),
    ("7541 4.2: the proxy keeps to the table that it was given", the_proxys_table),
    ("7541 4.2: the proxy keeps to no table at all", no_table),
];

/// `GET http://a` without `:path`.
fn rest() -> Vec<u8> {
    [indexed(2), indexed(6), [vec![1], plain(b"a")].concat()].concat()
}

fn request(block: &[u8]) -> Vec<u8> {
    headers(1, flag::END_STREAM, block)
}

fn forms() -> Vec<Row> {
    let path = b"/one";
    let with = |more: &[u8]| request(&[&rest()[..], more].concat());
    let named = |first: u8, bits: u8| [integer(first, bits, 4), plain(path)].concat();
    let new = |text: Vec<u8>| request(&[rest(), named(0, 4), text].concat());
    vec![
        row(
            "7541 6.1: lines of the static table",
            request(&[indexed(2), indexed(6), indexed(5), [vec![1], plain(b"a")].concat()].concat()),
            answered(),
        ),
        row("7541 6.2.1: a literal that enters the table, name of the table", with(&named(0x40, 6)), answered()),
        row("7541 6.2.1: a literal that enters the table, new name", new(remembered("x-test", "ok")), answered()),
        row("7541 6.2.2: a literal that enters no table, name of the table", with(&named(0, 4)), answered()),
        row("7541 6.2.2: a literal that enters no table, new name", new(line("x-test", "ok")), answered()),
        row("7541 6.2.3: a literal that never enters a table, name of the table", with(&named(0x10, 4)), answered()),
        row("7541 6.2.3: a literal that never enters a table, new name", new(never("x-test", "ok")), answered()),
        row(
            "7541 6.1: the youngest entry",
            new([remembered("x-test", "ok"), indexed(62), indexed(62)].concat()),
            answered(),
        ),
        row(
            "7541 6.2: the name of the youngest entry",
            new([remembered("x-test", "ok"), integer(0, 4, 62), plain(b"other")].concat()),
            answered(),
        ),
        row("7541 6.1: the last line of the static table", new(indexed(61)), Wanted::Answered(vec![1])),
    ]
}

fn huffman_rows() -> Vec<Row> {
    let with = |more: Vec<u8>| request(&[rest(), line(":path", "/one"), more].concat());
    let value = |code: Vec<u8>| [vec![0], plain(b"x-test"), coded(&code)].concat();
    let name = |code: Vec<u8>| [vec![0], coded(&code), plain(b"ok")].concat();
    let text = |text: &str| huffman::encode(&bytes(text));
    let wrong = || connection(code::COMPRESSION_ERROR);
    let every: String = (b' '..=b'~').map(char::from).collect();
    vec![
        row(
            "7541 5.2: a coded path",
            request(&[rest(), [integer(0, 4, 4), coded(&text("/one"))].concat()].concat()),
            answered(),
        ),
        row("7541 5.2: a coded name and value", with(huffman("x-test", "ok")), answered()),
        row("7541 5.2: every printable character, coded", with(value(text(every.trim()))), answered()),
        row("7541 5.2: 8-bit characters, coded", with(value(text("\u{80}\u{e9}\u{ff}"))), answered()),
        row("7541 5.2: nothing, coded", with(value(Vec::new())), answered()),
        row("7541 5.2: padding of 8 bits", with(value([text("ok"), vec![0xff]].concat())), wrong()),
        row("7541 5.2: padding of 24 bits", with(value([text("test"), vec![0xff; 3]].concat())), wrong()),
        row("7541 5.2: nothing but padding", with(value(vec![0xff])), wrong()),
        row("7541 5.2: padding of zeros", with(value(huffman::encode_padded_wrong(b"ok1"))), wrong()),
        row("7541 5.2: the end of a string within it", with(value(huffman::encode_with_end(b"ok"))), wrong()),
        row("7541 5.2: the end of a string within a name", with(name(huffman::encode_with_end(b"x-test"))), wrong()),
        row(
            "9113 8.2.1: CR LF, coded",
            with(value(text("ok\r\nx-evil: 1"))),
            Wanted::Stream(1, vec![code::PROTOCOL_ERROR]),
        ),
        row(
            "9113 8.2.1: an upper-case name, coded",
            with(name(text("X-Test"))),
            Wanted::Stream(1, vec![code::PROTOCOL_ERROR]),
        ),
        row(
            "9113 8.2.1: CR LF that enters the table",
            with([remembered("x-test", "ok\r\nx-evil: 1"), indexed(62)].concat()),
            Wanted::Stream(1, vec![code::PROTOCOL_ERROR]),
        ),
    ]
}

fn tables() -> Vec<Row> {
    let one = || asked_block();
    let wrong = || connection(code::COMPRESSION_ERROR);
    vec![
        row("7541 6.3: a size at the beginning", request(&[resized(0), one()].concat()), answered()),
        row("7541 6.3: two sizes at the beginning", request(&[resized(0), resized(4096), one()].concat()), answered()),
        row("7541 6.3: the size that there is", request(&[resized(4096), one()].concat()), answered()),
        row("7541 6.3: a size above what SETTINGS allow", request(&[resized(4097), one()].concat()), wrong()),
        row("7541 6.3: a size far above it", request(&[resized(1 << 20), one()].concat()), wrong()),
        row("7541 4.2: a size behind a field", request(&[one(), resized(64)].concat()), wrong()),
        row(
            "7541 4.2: a size between fields",
            request(&[rest(), resized(64), line(":path", "/one")].concat()),
            wrong(),
        ),
        row(
            "7541 6.3: a block of nothing but a size",
            request(&resized(64)),
            Wanted::Stream(1, vec![code::PROTOCOL_ERROR]),
        ),
    ]
}

fn asked_block() -> Vec<u8> {
    hpack::block(&get("/one"))
}

fn broken() -> Vec<Row> {
    let with = |more: &[u8]| request(&[&asked_block()[..], more].concat());
    let wrong = || connection(code::COMPRESSION_ERROR);
    vec![
        row("7541 6.1: index 0", with(&indexed(0)), wrong()),
        row("7541 2.3.3: an index above both tables", with(&indexed(70)), wrong()),
        row("7541 2.3.3: the first index behind the static table, of an empty one", with(&indexed(62)), wrong()),
        row("7541 2.3.3: a name above both tables", with(&[integer(0x40, 6, 70), plain(b"x")].concat()), wrong()),
        row(
            "7541 2.3.3: a name above both tables, that enters none",
            with(&[integer(0, 4, 70), plain(b"x")].concat()),
            wrong(),
        ),
        row("7541 2.3.3: an index far above", with(&indexed(1 << 20)), wrong()),
        row("7541 5.2: a string that is cut", with(&[0, 6, b'x', b'-', b't']), wrong()),
        row("7541 5.2: a value that is cut", with(&[0, 1, b'x', 5, b'a']), wrong()),
        row("7541 5.2: no value", with(&[0, 1, b'x']), wrong()),
        row("7541 5.2: no name", with(&[0]), wrong()),
        row("7541 5.2: a length of a gigabyte", with(&[0, 0x7f, 0xff, 0xff, 0xff, 0xff, 3]), wrong()),
        row("7541 6.2: an empty name", with(&[0, 0, 1, b'x']), Wanted::Stream(1, vec![code::PROTOCOL_ERROR])),
        // What came before is not forgotten with the stream.
        row("7541 6.1: one error ends all", [with(&indexed(0)), asked(3)].concat(), wrong()),
    ]
}

fn integers() -> Vec<Row> {
    let with = |more: &[u8]| request(&[&asked_block()[..], more].concat());
    let wrong = || connection(code::COMPRESSION_ERROR);
    vec![
        row("7541 5.1: an integer that is cut", with(&[0xff]), wrong()),
        row("7541 5.1: an integer that is cut within", with(&[0xff, 0x80]), wrong()),
        row("7541 5.1: an integer without end", with(&[&[0xff][..], &[0xff; 20], &[0]].concat()), wrong()),
        row(
            "7541 5.1: an integer of 2^64",
            with(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]),
            wrong(),
        ),
        row("7541 5.1: a length of more than one byte", with(&line("x-test", &"v".repeat(300))), answered()),
        row("7541 5.1: a length of more than two bytes", with(&line("x-test", &"v".repeat(16_000))), answered()),
        row(
            "7541 5.1: an integer with zeros at its end",
            with(&[&[0][..], &plain(b"x-test"), &[0x7f, 0x80, 0x00], &[b'v'; 127]].concat()),
            Wanted::Answered(vec![1]),
        ),
    ]
}

/// Asks with that block, and tells what the origin got of a field.
fn ask(client: &mut Client, world: &World, path: &str, more: &[u8]) -> Vec<(String, String)> {
    let stream = client.stream();
    client.send(headers(stream, flag::END_STREAM, &[&rest()[..], &line(":path", path), more].concat()));
    let said = client.answer(stream);
    assert_eq!(said.status(), "200", "{said:?}");
    let (_, request) = world.backend.wait_request(path);
    request.fields.0.into_iter().filter(|(name, _)| name.starts_with("x-t")).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn entries(world: &World) {
    let mut client = Client::connect(world.proxy);
    let both = [remembered("x-t1", "one"), remembered("x-t2", "two")].concat();
    assert_eq!(ask(&mut client, world, "/1", &both), pairs(&[("x-t1", "one"), ("x-t2", "two")]));
    assert_eq!(
        ask(&mut client, world, "/2", &[indexed(62), indexed(63)].concat()),
        pairs(&[("x-t2", "two"), ("x-t1", "one")])
    );
    let renamed = [integer(0x40, 6, 63), plain(b"three")].concat();
    assert_eq!(ask(&mut client, world, "/3", &renamed), pairs(&[("x-t1", "three")]));
    assert_eq!(
        ask(&mut client, world, "/4", &[indexed(62), indexed(63), indexed(64)].concat()),
        pairs(&[("x-t1", "three"), ("x-t2", "two"), ("x-t1", "one")])
    );
}

fn evicted(world: &World) {
    let mut client = Client::connect(world.proxy);
    let long = "v".repeat(1300);
    // Each takes 1300 + 4 + 32 bytes of 4096: three have room.
    for name in ["x-t1", "x-t2", "x-t3", "x-t4"] {
        ask(&mut client, world, &format!("/{name}"), &remembered(name, &long));
    }
    let found = ask(&mut client, world, "/all", &[indexed(62), indexed(63), indexed(64)].concat());
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-t4", "x-t3", "x-t2"]);
    client.send(headers(101, flag::END_STREAM, &[asked_block(), indexed(65)].concat()));
    client.connection_error(&[code::COMPRESSION_ERROR]);
}

fn too_large_an_entry(world: &World) {
    let mut client = Client::connect(world.proxy);
    ask(&mut client, world, "/1", &remembered("x-t1", "one"));
    ask(&mut client, world, "/2", &remembered("x-t2", &"v".repeat(5000)));
    client.send(headers(101, flag::END_STREAM, &[asked_block(), indexed(62)].concat()));
    client.connection_error(&[code::COMPRESSION_ERROR]);
}

fn resizing(world: &World) {
    let mut client = Client::connect(world.proxy);
    ask(&mut client, world, "/1", &[remembered("x-t1", "one"), remembered("x-t2", "two")].concat());
    let stream = client.stream();
    let smaller = [resized(50), rest(), line(":path", "/2"), indexed(62)].concat();
    client.send(headers(stream, flag::END_STREAM, &smaller));
    assert_eq!(client.answer(stream).status(), "200");
    let stream = client.stream();
    client.send(headers(
        stream,
        flag::END_STREAM,
        &[resized(0), resized(4096), rest(), line(":path", "/3"), remembered("x-t3", "three"), indexed(62)].concat(),
    ));
    assert_eq!(client.answer(stream).status(), "200");
    client.send(headers(101, flag::END_STREAM, &[asked_block(), indexed(63)].concat()));
    client.connection_error(&[code::COMPRESSION_ERROR]);
}

fn of_refused(world: &World) {
    let mut client = Client::connect(world.proxy);
    let stream = client.stream();
    // Malformed twice over, and the line behind the flaws counts all the same.
    let bad = [asked_block(), line("connection", "close"), line("X-Bad", "1"), remembered("x-t1", "one")].concat();
    client.send(headers(stream, flag::END_STREAM, &bad));
    client.stream_error(stream, &[code::PROTOCOL_ERROR]);
    assert_eq!(ask(&mut client, world, "/1", &indexed(62)), pairs(&[("x-t1", "one")]));
}

fn the_proxys_table(world: &World) {
    for bytes in [1, 50, 200, 4096, 65_536] {
        let mut client = Client::with_settings(world.proxy, &[(setting::HEADER_TABLE_SIZE, bytes)]);
        for number in 0..20 {
            client.serves(&format!("/{bytes}/{number}"));
        }
    }
}

fn no_table(world: &World) {
    let mut client = Client::with_settings(world.proxy, &[(setting::HEADER_TABLE_SIZE, 0)]);
    for number in 0..20 {
        client.serves(&format!("/{number}"));
    }
    // And later on.
    let mut client = Client::connect(world.proxy);
    client.serves("/one");
    client.send(super::frame::settings(&[(setting::HEADER_TABLE_SIZE, 0)]));
    client.settle();
    client.serves("/two");
    client.serves("/three");
}
