//! Windows and turns: RFC 9113 sections 5.2 and 6.9, and what a slow reader may cost.

use super::*;

/// A server with one POST open, and what it has read.
fn posting(settings: &Settings) -> (Tested, StreamKey) {
    let mut tested = Tested::fresh(App::Holds, settings, &Limits::default());
    tested.feed(&[PREFACE, &super::settings(&[]), &headers(1, WHOLE, POST)].concat()).unwrap();
    drain(&mut tested.connection);
    let key = tested.open[0];
    (tested, key)
}

fn increments(written: &[Written], stream: u32) -> Vec<u32> {
    let updates = written.iter().filter(|frame| frame.kind == kind::WINDOW_UPDATE && frame.stream == stream);
    updates.map(|frame| u32::from_be_bytes(frame.payload[..].try_into().unwrap())).collect()
}

#[test]
fn rfc_9113_6_9_1_nobody_sends_more_than_the_window() {
    let (mut tested, _) = posting(&Settings::default());
    let full = vec![0; 16_384];
    for _ in 0..3 {
        tested.feed(&data(1, 0, &full)).unwrap();
    }
    tested.feed(&data(1, 0, &full[..16_383])).unwrap();
    assert_eq!(tested.written(), [], "nobody has read");
    tested.feed(&data(1, 0, b"x")).unwrap();
    check_written("a byte too many", Ok(()), &tested.written(), Expected::Stream(1, Code::FLOW_CONTROL_ERROR));
    let small = Settings { connection_window_bytes: 65_535, ..Settings::default() };
    let (mut tested, _) = posting(&small);
    tested.feed(&headers(3, WHOLE, POST)).unwrap();
    for stream in [1, 3, 1, 3] {
        let fed = tested.feed(&data(stream, 0, &full));
        assert_eq!(fed.is_err(), tested.connection.failed().is_some());
    }
    assert_eq!(tested.connection.failed().map(|error| error.code()), Some(Code::FLOW_CONTROL_ERROR));
}

#[test]
fn rfc_9113_6_9_windows_follow_what_was_read() {
    let settings =
        Settings { connection_window_bytes: 100_000, stream_window_bytes_max: 65_535, ..Settings::default() };
    let (mut tested, key) = posting(&settings);
    let full = vec![0; 16_000];
    for turn in 1..=50 {
        tested.feed(&data(1, 0, &full)).unwrap();
        let (body, _) = read_all(&mut tested.connection, key);
        assert_eq!(body.len(), 16_000, "turn {turn}");
        tested.connection.check_invariants();
        let written = tested.written();
        let (stream, connection) = (increments(&written, 1), increments(&written, 0));
        assert_eq!(stream.is_empty(), turn % 3 != 0, "one update for half a window");
        assert_eq!(connection.is_empty(), turn % 4 != 0);
    }
    assert_eq!(tested.connection.unread_bytes(), 0);
}

#[test]
fn a_window_grows_as_its_reader_reads() {
    let (mut tested, key) = posting(&Settings::default());
    let full = vec![0; 16_000];
    let mut given = 65_535u64;
    let mut sent = 0u64;
    for _ in 0..2000 {
        while sent + 16_000 <= given {
            tested.feed(&data(1, 0, &full)).unwrap();
            sent += 16_000;
        }
        read_all(&mut tested.connection, key);
        tested.connection.check_invariants();
        given += increments(&tested.written(), 1).iter().map(|by| u64::from(*by)).sum::<u64>();
    }
    let open = given - sent;
    assert!((1 << 19..=1 << 20).contains(&open), "{open} bytes are open");
}

#[test]
fn a_stalled_stream_holds_up_nobody_else() {
    let mut tested = Tested::server(App::Holds);
    let full = vec![0; 16_383];
    // A hundred streams of which nobody reads a byte.
    for stream in (1..200).step_by(2) {
        tested.feed(&headers(stream, WHOLE, POST)).unwrap();
        for _ in 0..4 {
            tested.feed(&data(stream, 0, &full)).unwrap();
        }
    }
    tested.feed(&headers(201, WHOLE, POST)).unwrap();
    let key = *tested.open.last().unwrap();
    let (mut given, mut sent) = (65_535u64, 0u64);
    for _ in 0..1000 {
        if sent + 16_383 <= given {
            tested.feed(&data(201, 0, &full)).unwrap();
            sent += 16_383;
        }
        read_all(&mut tested.connection, key);
        given += increments(&tested.written(), 201).iter().map(|by| u64::from(*by)).sum::<u64>();
    }
    assert!(sent > 15_000_000, "{sent} bytes came through");
    assert!(tested.connection.unread_bytes() < 100 * 65_536);
    // When they are let go, all of it is given back.
    for key in std::mem::take(&mut tested.open) {
        tested.connection.release(key);
    }
    assert_eq!((tested.connection.unread_bytes(), tested.connection.active_streams()), (0, 0));
    tested.connection.check_invariants();
}

#[test]
fn many_small_pieces_take_no_more_memory_than_few_large_ones() {
    let (mut tested, key) = posting(&Settings::default());
    for _ in 0..10_000 {
        tested.feed(&data(1, 0, b"x")).unwrap();
    }
    let mut pieces = 0;
    while let Some(Received::Frame(_)) = tested.connection.read(key) {
        pieces += 1;
    }
    assert!(pieces <= 3, "{pieces} pieces");
}

#[test]
fn data_of_many_streams_takes_turns_and_heads_go_first() {
    let mut tested = Tested::server(App::Holds);
    let wide = [settings(&[(4, 1 << 20)]), window_update(0, 1 << 24)].concat();
    tested.feed(&wide).unwrap();
    for stream in [1, 3, 5] {
        tested.feed(&headers(stream, WHOLE | END, GET)).unwrap();
    }
    drain(&mut tested.connection);
    let head = ResponseHead::new(StatusCode::OK, Version::HTTP_2, Fields::default());
    let body = Bytes::from(vec![7; 100_000]);
    for key in tested.open.clone() {
        tested.connection.send_response(key, &head, false).unwrap();
        tested.connection.send_data(key, body.clone(), true).unwrap();
    }
    let written = tested.written();
    let order: Vec<_> = written.iter().map(|frame| (frame.kind, frame.stream)).collect();
    let heads = [1, 3, 5].map(|stream| (kind::HEADERS, stream));
    let turns = [1, 3, 5].map(|stream| (kind::DATA, stream));
    assert_eq!(order[..3], heads);
    for turn in 1..6 {
        assert_eq!(order[turn * 3..turn * 3 + 3], turns, "turn {turn}");
    }
    let total: usize = written.iter().filter(|frame| frame.kind == kind::DATA).map(|frame| frame.payload.len()).sum();
    assert_eq!(total, 300_000);
    assert_eq!(written.iter().filter(|frame| frame.flags & END != 0 && frame.kind == kind::DATA).count(), 3);
}

#[test]
fn a_writer_is_told_when_there_is_room_again() {
    let mut tested = Tested::server(App::Holds);
    tested.feed(&headers(1, WHOLE | END, GET)).unwrap();
    let key = tested.open[0];
    let head = ResponseHead::new(StatusCode::OK, Version::HTTP_2, Fields::default());
    tested.connection.send_response(key, &head, false).unwrap();
    let mut sent = 0;
    while tested.connection.has_room(key) {
        tested.connection.send_data(key, Bytes::from(vec![0; 8000]), false).unwrap();
        drain(&mut tested.connection);
        sent += 8000;
    }
    assert!((65_535 + 24_000..65_535 + 48_000).contains(&sent), "{sent}");
    assert!(tested.connection.next_event().is_none());
    tested.connection.receive(&window_update(1, 1 << 20), tested.now).unwrap();
    drain(&mut tested.connection);
    assert!(tested.connection.next_event().is_none(), "the connection's window is shut");
    tested.connection.receive(&window_update(0, 1 << 20), tested.now).unwrap();
    drain(&mut tested.connection);
    assert!(matches!(tested.connection.next_event(), Some(Event::Writable(told)) if told == key));
    tested.connection.send_trailers(key, [("a", "b")].into_iter().collect()).unwrap();
    assert_eq!(tested.written().last().unwrap().flags, END | WHOLE);
}

#[test]
fn rfc_9113_8_1_a_request_nobody_wants_to_the_end() {
    let mut tested = Tested::server(App::Holds);
    tested.feed(&headers(1, WHOLE, POST)).unwrap();
    let key = tested.open[0];
    let head = ResponseHead::new(StatusCode::OK, Version::HTTP_2, Fields::default());
    tested.connection.send_response(key, &head, true).unwrap();
    tested.connection.release(key);
    check_written("the answer was whole", Ok(()), &tested.written(), Expected::Stream(1, Code::NO_ERROR));
    // With data that waits for a window, the reset waits too.
    tested.feed(&[settings(&[(4, 0)]), headers(3, WHOLE, POST)].concat()).unwrap();
    let key = tested.open[1];
    tested.connection.send_response(key, &head, false).unwrap();
    tested.connection.send_data(key, Bytes::from_static(b"hello"), true).unwrap();
    tested.connection.release(key);
    assert!(tested.written().iter().all(|frame| frame.kind != kind::RST_STREAM));
    tested.feed(&window_update(3, 100)).unwrap();
    let written = tested.written();
    assert_eq!(written.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [kind::DATA, kind::RST_STREAM]);
    // Without an answer, it is an error.
    tested.feed(&headers(5, WHOLE, POST)).unwrap();
    tested.connection.release(tested.open[2]);
    check_written("no answer", Ok(()), &tested.written(), Expected::Stream(5, Code::INTERNAL_ERROR));
    assert_eq!(tested.connection.active_streams(), 0);
}
