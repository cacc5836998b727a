//! Calls as they should be: messages, metadata and statuses arrive as they were sent.

use super::{Call, Case, DONE, METHOD, OK, calling, echoes, message, status_of};
use crate::h2::frame::{self, flag};
use crate::h2::hpack::block;
use crate::h2::origin::Manners;
use crate::h2::world::World;

pub const CASES: &[Case] = &[
    ("a unary call", unary),
    ("client streaming, message by message", client_streaming),
    ("server streaming, message by message", server_streaming),
    ("both ways, a thousand messages one after the other", ping_pong),
    ("both ways at their own pace", own_pace),
    ("head and fields of a call as they were", call_head),
    ("a deadline is passed on as it was", deadline),
    ("initial metadata comes before any message", initial_metadata),
    ("trailers alone", trailers_alone),
    ("every status in trailers", every_status),
    ("every status in trailers alone", every_status_alone),
    ("a message of a status, percent-encoded, and its details", status_message),
    ("binary metadata, both ways", binary_metadata),
    ("metadata repeated, in order", repeated_metadata),
    ("what stands behind a question says neither who asks nor who called", behind_a_question),
    ("metadata of 32 KiB", long_metadata),
    ("a message of no length", empty_message),
    ("no message at all", no_message),
    ("a message in many frames, and many messages in one", any_frames),
    ("frames with padding", padded),
    ("a compressed message and its coding", compressed),
    ("another content type of gRPC's", subtypes),
    ("a service that is no gRPC answers in HTTP", not_grpc),
    ("an interim response before a call's answer", interim),
    ("status before all was asked", early_status),
    ("DATA that ends a stream without trailers", no_trailers),
    ("no error behind trailers", reset_behind_trailers),
    ("a call of an HTTP/1.1 client", from_http1),
];

fn world() -> World {
    World::start(Manners::default())
}

fn unary() {
    let world = world();
    let mut client = world.client();
    let stream = client.begin(&calling(METHOD, &[]));
    client.send(frame::data(stream, flag::END_STREAM, &message(b"question")));
    let (place, asked) = world.origin.wait_request(METHOD);
    assert_eq!(asked.body, message(b"question"));
    world.origin.head(place, OK);
    world.origin.data(place, &message(b"answer"));
    world.origin.only_head(place, &[DONE[0], ("x-trailer", "1")]);
    let said = client.answer(stream);
    assert_eq!((said.status(), said.first("content-type")), ("200", "application/grpc"));
    assert_eq!(said.body, message(b"answer"));
    assert_eq!(said.trailers.unwrap().0, [("grpc-status".into(), "0".into()), ("x-trailer".into(), "1".into())]);
    echoes(&world, &mut client, "/held.Echo/After");
    world.serves("/probe");
}

fn client_streaming() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    for number in 1..=10 {
        call.ask(&mut client, b"part");
        call.asked(number * message(b"part").len());
    }
    call.end(&mut client);
    let (_, said) = world.origin.wait_request(METHOD);
    assert_eq!(said.body, message(b"part").repeat(10));
    call.head();
    call.answer(b"10");
    call.done();
    assert_eq!(client.answer(call.stream).body, message(b"10"));
}

fn server_streaming() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.ask(&mut client, b"10");
    call.end(&mut client);
    call.head();
    for number in 1..=10 {
        call.answer(b"part");
        call.answered(&mut client, number * message(b"part").len());
    }
    call.done();
    assert_eq!(client.answer(call.stream).body, message(b"part").repeat(10));
}

fn ping_pong() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.head();
    let length = message(b"0000").len();
    for number in 1..=1000 {
        let text = format!("{number:04}");
        call.ask(&mut client, text.as_bytes());
        call.asked(number * length);
        call.answer(text.as_bytes());
        call.answered(&mut client, number * length);
    }
    call.end(&mut client);
    let (_, asked) = world.origin.wait_request(METHOD);
    call.done();
    let said = client.answer(call.stream);
    assert!(said.body == asked.body && said.body.len() == 1000 * length);
}

fn own_pace() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.head();
    call.answer(b"before any question");
    call.answered(&mut client, 10);
    call.end(&mut client);
    world.origin.wait_request(METHOD);
    call.answer(b"behind the last question");
    call.done();
    let wanted = [message(b"before any question"), message(b"behind the last question")].concat();
    assert_eq!(client.answer(call.stream).body, wanted);
}

fn call_head() {
    let world = world();
    let mut client = world.client();
    let metadata = [("user-agent", "grpc-test/1"), ("grpc-accept-encoding", "gzip, identity"), ("x-a", "1")];
    client.begin(&calling(METHOD, &metadata));
    let said = world.origin.said(world.origin.wait_head(METHOD));
    let head = said.head().unwrap();
    for (name, value) in calling(METHOD, &metadata) {
        assert_eq!(head.all(name), [value], "{name}");
    }
    assert!(!head.has("content-length") && !head.has("expect"), "{head:?}");
}

fn deadline() {
    let world = world();
    for value in ["1H", "10M", "5S", "1500m", "99999999u", "1n"] {
        let mut client = world.client();
        let method = format!("{METHOD}{value}");
        client.begin(&calling(&method, &[("grpc-timeout", value)]));
        assert_eq!(world.origin.said(world.origin.wait_head(&method)).all("grpc-timeout"), [value]);
    }
}

fn initial_metadata() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    world.origin.head(call.place, &[OK[0], OK[1], ("x-initial", "1")]);
    client.wait("initial metadata", |heard| heard.on(call.stream)?.head().map(drop));
    assert_eq!(client.heard.streams[&call.stream].first("x-initial"), "1");
    call.end(&mut client);
    call.done();
    assert_eq!(status_of(&client.answer(call.stream)), "0");
}

fn trailers_alone() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.end(&mut client);
    world.origin.wait_request(METHOD);
    world
        .origin
        .only_head(call.place, &[OK[0], OK[1], ("grpc-status", "5"), ("grpc-message", "not here"), ("x-t", "1")]);
    let said = client.answer(call.stream);
    assert_eq!((said.status(), said.first("grpc-status"), said.first("grpc-message")), ("200", "5", "not here"));
    assert_eq!((said.first("x-t"), said.data_frames), ("1", 0));
    assert!(said.trailers.is_none() && !said.head().unwrap().has("proxy-status"), "{said:?}");
}

fn every_status() {
    let world = world();
    let mut client = world.client();
    for status in (0..=16).chain([99]) {
        let (method, status) = (format!("{METHOD}{status}"), status.to_string());
        let call = Call::of(&world, &mut client, &method);
        call.end(&mut client);
        world.origin.wait_request(&method);
        call.head();
        call.answer(b"part");
        world.origin.only_head(call.place, &[("grpc-status", &status)]);
        let said = client.answer(call.stream);
        assert_eq!((status_of(&said), said.body), (status, message(b"part")));
    }
}

fn every_status_alone() {
    let world = world();
    let mut client = world.client();
    for status in (0..=16).chain([99]) {
        let (method, status) = (format!("{METHOD}{status}"), status.to_string());
        let call = Call::of(&world, &mut client, &method);
        call.end(&mut client);
        world.origin.wait_request(&method);
        world.origin.only_head(call.place, &[OK[0], OK[1], ("grpc-status", &status)]);
        let said = client.answer(call.stream);
        assert_eq!((said.first("grpc-status"), said.status()), (status.as_str(), "200"));
        assert!(!said.head().unwrap().has("proxy-status"), "{said:?}");
    }
}

fn status_message() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.end(&mut client);
    call.head();
    let trailers =
        [("grpc-status", "9"), ("grpc-message", "caf%C3%A9 %25 \"x\""), ("grpc-status-details-bin", "CAkSBG5vcGU")];
    world.origin.only_head(call.place, &trailers);
    let said = client.answer(call.stream);
    let found = said.trailers.unwrap().0;
    let wanted: Vec<_> = trailers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(found, wanted);
}

/// With a call, with its answer and behind it, this comes as it was.
fn carried(metadata: &[(&str, &str)]) {
    let world = world();
    let mut client = world.client();
    let stream = client.begin(&calling(METHOD, metadata));
    let place = world.origin.wait_head(METHOD);
    let asked = world.origin.said(place);
    world.origin.head(place, &[OK, metadata].concat());
    world.origin.only_head(place, &[DONE, metadata].concat());
    let said = client.answer(stream);
    for found in [asked.head(), said.head(), said.trailers.as_ref()] {
        let found = found.unwrap().0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own: Vec<_> = found.filter(|(name, _)| metadata.iter().any(|(own, _)| own == name)).collect();
        assert_eq!(own, metadata);
    }
}

fn binary_metadata() {
    // With padding, without, several in one line, and none.
    carried(&[("a-bin", "AP8="), ("b-bin", "AP8"), ("c-bin", "AA,AQ"), ("d-bin", "")]);
}

fn repeated_metadata() {
    carried(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3"), ("x-a", "1")]);
}

fn behind_a_question() {
    let world = world();
    let mut client = world.client();
    let stream = client.begin(&calling(METHOD, &[]));
    client.send(frame::data(stream, 0, &message(b"question")));
    let behind =
        [("x-checksum", "7"), ("x-forwarded-for", "10.9.9.9"), ("authorization", "Basic eDp5"), ("x-real-ip", "1")];
    client.send(frame::headers(stream, flag::END_STREAM, &block(&behind)));
    let (place, asked) = world.origin.wait_request(METHOD);
    assert_eq!(asked.trailers.unwrap().0, [("x-checksum".into(), "7".into())]);
    world.origin.head(place, OK);
    world.origin.only_head(place, DONE);
    assert_eq!(status_of(&client.answer(stream)), "0");
}

fn long_metadata() {
    let world = world();
    let mut client = world.client();
    let long = "v".repeat(32 << 10);
    let stream = client.begin(&calling(METHOD, &[("x-long", &long)]));
    let place = world.origin.wait_head(METHOD);
    assert_eq!(world.origin.said(place).all("x-long"), [long.as_str()]);
    world.origin.head(place, &[OK, &[("x-long", &long)]].concat());
    world.origin.only_head(place, &[DONE, &[("x-long", &long)]].concat());
    let said = client.answer(stream);
    let trailers = said.trailers.as_ref().unwrap();
    assert_eq!((said.first("x-long"), trailers.first("x-long")), (long.as_str(), Some(long.as_str())));
}

fn empty_message() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.ask(&mut client, b"");
    call.end(&mut client);
    assert_eq!(world.origin.wait_request(METHOD).1.body, [0; 5]);
    call.head();
    call.answer(b"");
    call.done();
    assert_eq!(client.answer(call.stream).body, [0; 5]);
}

fn no_message() {
    let world = world();
    let mut client = world.client();
    let stream = client.ask(&calling(METHOD, &[]));
    let (place, said) = world.origin.wait_request(METHOD);
    assert!(said.body.is_empty());
    world.origin.head(place, OK);
    world.origin.only_head(place, DONE);
    let said = client.answer(stream);
    assert!(said.body.is_empty() && status_of(&said) == "0", "{said:?}");
}

fn any_frames() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    let all: Vec<u8> = (0..50).flat_map(|number| message(format!("number {number}").as_bytes())).collect();
    for byte in &all {
        client.send(frame::data(call.stream, 0, &[*byte]));
    }
    client.send(frame::data(call.stream, 0, &all));
    call.end(&mut client);
    assert!(world.origin.wait_request(METHOD).1.body == all.repeat(2));
    call.head();
    world.origin.data(call.place, &all);
    for byte in &all {
        world.origin.data(call.place, &[*byte]);
    }
    call.done();
    assert!(client.answer(call.stream).body == all.repeat(2));
}

fn padded() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    let padded = [&[9][..], &message(b"question"), &[0; 9]].concat();
    client.send(frame::data(call.stream, flag::PADDED | flag::END_STREAM, &padded));
    assert_eq!(world.origin.wait_request(METHOD).1.body, message(b"question"));
    call.head();
    let padded = [&[200][..], &message(b"answer"), &[0; 200]].concat();
    world.origin.send(call.place.connection, frame::data(call.place.stream, flag::PADDED, &padded));
    call.done();
    assert_eq!(client.answer(call.stream).body, message(b"answer"));
}

fn compressed() {
    let world = world();
    let mut client = world.client();
    let coding = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")];
    let stream = client.begin(&calling(METHOD, &coding));
    let sent = [&[1, 0, 0, 0, 3][..], b"\x1f\x8b\x08"].concat();
    client.send(frame::data(stream, flag::END_STREAM, &sent));
    let (place, asked) = world.origin.wait_request(METHOD);
    assert_eq!((asked.body, asked.heads[0].first("grpc-encoding")), (sent.clone(), Some("gzip")));
    world.origin.head(place, &[OK, &coding].concat());
    world.origin.data(place, &sent);
    world.origin.only_head(place, DONE);
    let said = client.answer(stream);
    assert_eq!((said.first("grpc-encoding"), said.body.clone()), ("gzip", sent));
}

fn subtypes() {
    let world = world();
    for kind in
        ["application/grpc+proto", "application/grpc+json", "application/grpc;v=1", "application/grpc-web+proto"]
    {
        let mut client = world.client();
        let method = format!("{METHOD}/{kind}");
        let head = calling(&method, &[]);
        let stream = client.begin(&[&head[..5], &[("content-type", kind)]].concat());
        let place = world.origin.wait_head(&method);
        assert_eq!(world.origin.said(place).all("content-type"), [kind]);
        world.origin.head(place, &[OK[0], ("content-type", kind)]);
        world.origin.only_head(place, DONE);
        assert_eq!(client.answer(stream).all("content-type"), [kind]);
    }
}

fn not_grpc() {
    let world = world();
    for (status, text) in [("404", "nothing here"), ("503", "busy"), ("200", "<html>"), ("302", "")] {
        let mut client = world.client();
        let method = format!("{METHOD}{status}");
        let call = Call::of(&world, &mut client, &method);
        call.end(&mut client);
        world.origin.wait_request(&method);
        world.origin.head(call.place, &[(":status", status), ("content-type", "text/html")]);
        world.origin.data_and_end(call.place, text.as_bytes());
        let said = client.answer(call.stream);
        assert_eq!((said.status(), said.text(), said.first("content-type")), (status, text.to_owned(), "text/html"));
    }
}

fn interim() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    world.origin.head(call.place, &[(":status", "103"), ("x-early", "1")]);
    client.wait("an interim response", |heard| heard.on(call.stream).filter(|said| !said.heads.is_empty()).map(drop));
    call.end(&mut client);
    call.head();
    call.done();
    let said = client.answer(call.stream);
    assert_eq!((said.heads.len(), said.heads[0].first("x-early"), status_of(&said)), (2, Some("1"), "0".into()));
}

fn early_status() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.ask(&mut client, b"part");
    call.asked(9);
    world.origin.only_head(call.place, &[OK[0], OK[1], ("grpc-status", "8"), ("grpc-message", "enough")]);
    let said = client.answer(call.stream);
    assert_eq!((status_of(&said), said.first("grpc-message")), ("8".into(), "enough"));
    // The rest of what was asked is not wanted, and that is no error.
    let code = client.wait("the end of the call", |heard| heard.on(call.stream)?.reset);
    assert_eq!(code, frame::code::NO_ERROR);
    let code = world.origin.wait_reset(call.place);
    assert!([frame::code::CANCEL, frame::code::NO_ERROR].contains(&code), "{code}");
    echoes(&world, &mut client, "/held.Echo/After");
}

fn no_trailers() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.end(&mut client);
    call.head();
    world.origin.data_and_end(call.place, &message(b"answer"));
    let said = client.over(call.stream);
    // It is the client's to make of that what it likes; nobody invents a status that says well.
    assert!(said.body == message(b"answer") && status_of(&said) != "0", "{said:?}");
}

fn reset_behind_trailers() {
    let world = world();
    let mut client = world.client();
    let call = Call::begin(&world, &mut client);
    call.ask(&mut client, b"part");
    call.asked(9);
    let trailers = frame::headers(call.place.stream, flag::END_STREAM, &block(DONE));
    let head = frame::headers(call.place.stream, 0, &block(OK));
    let reset = frame::reset(call.place.stream, frame::code::NO_ERROR);
    world.origin.send(call.place.connection, [head, trailers, reset].concat());
    assert_eq!(status_of(&client.answer(call.stream)), "0");
    echoes(&world, &mut client, "/held.Echo/After");
}

fn from_http1() {
    let world = world();
    let mut client = crate::client::Client::connect(world.proxy.address);
    client.send(format!(
        "POST {METHOD} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nContent-Type: application/grpc\r\nContent-Length: 9\r\n\r\n"
    ));
    client.send(message(b"part"));
    let (place, said) = world.origin.wait_request(METHOD);
    assert_eq!((said.body.clone(), said.first("te")), (message(b"part"), "trailers"));
    world.origin.head(place, OK);
    world.origin.data(place, &message(b"answer"));
    world.origin.only_head(place, DONE);
    let answer = client.response("POST").entire();
    assert_eq!((answer.body.clone(), answer.trailers.first("grpc-status")), (message(b"answer"), Some("0")));
}
