//! Every limit of [`Limits`], broken; and what a busy peer may do without breaking one.

use std::time::Duration;

use super::*;

/// Feeds frames until a limit is broken; tells which, and behind how many.
fn flood(limits: &Limits, app: App, mut frame: impl FnMut(u32) -> Vec<u8>) -> (Limit, u32) {
    let mut tested = Tested::fresh(app, &Settings::default(), limits);
    tested.feed(&[PREFACE, &settings(&[])].concat()).unwrap();
    for turn in 0..100_000 {
        if turn % 64 == 0 {
            drain(&mut tested.connection);
        }
        match tested.feed(&frame(turn)) {
            Ok(()) => {}
            Err(ConnectionError::Flood { limit }) => {
                let written = tested.written();
                let goaway = written.last().unwrap();
                assert_eq!((goaway.kind, goaway.payload[7]), (kind::GOAWAY, Code::ENHANCE_YOUR_CALM.0 as u8));
                return (limit, turn + 1);
            }
            Err(error) => panic!("{error:?} at {turn}"),
        }
    }
    panic!("no limit was broken");
}

#[test]
fn rfc_9113_10_5_every_flood_has_its_limit() {
    let limits = Limits::default();
    let check = |expected: (Limit, u32), frame: &dyn Fn(u32) -> Vec<u8>| {
        assert_eq!(flood(&limits, App::Holds, frame), expected);
    };
    check((Limit::Pings, 1001), &|_| frame(kind::PING, 0, 0, &[0; 8]));
    check((Limit::Pings, 1001), &|_| frame(kind::PING, flag::ACK, 0, &[0; 8]));
    // The client's first were settings too.
    check((Limit::Settings, 100), &|_| settings(&[]));
    check((Limit::Settings, 100), &|_| frame(kind::SETTINGS, flag::ACK, 0, &[]));
    check((Limit::Settings, 100), &|_| frame(kind::GOAWAY, 0, 0, &[0; 8]));
    check((Limit::Priorities, 1001), &|_| frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]));
    check((Limit::WindowUpdates, 2001), &|_| window_update(0, 1));
    check((Limit::Ignored, 2001), &|_| frame(0xfa, 0, 0, &[]));
    let begins = |turn: u32, rest: Vec<u8>| if turn == 0 { headers(1, WHOLE, POST) } else { rest };
    check((Limit::EmptyData, 103), &|turn| begins(turn, data(1, 0, &[])));
    check((Limit::EmptyData, 103), &|turn| begins(turn, data(1, flag::PADDED, &[3, 0, 0, 0])));
    let begins = |turn: u32, rest: Vec<u8>| if turn == 0 { headers(1, 0, POST) } else { rest };
    check((Limit::Continuations, 18), &|turn| begins(turn, frame(kind::CONTINUATION, 0, 1, &[])));
    check((Limit::HeaderBlockBytes, 9), &|turn| begins(turn, frame(kind::CONTINUATION, 0, 1, &[0; 16_384])));
}

#[test]
fn rfc_9113_10_5_rapid_reset() {
    let limits = Limits::default();
    let rapid = |turn: u32| [headers(turn * 2 + 1, WHOLE | END, GET), reset(turn * 2 + 1, Code::CANCEL)].concat();
    assert_eq!(flood(&limits, App::Answers, &rapid), (Limit::Resets, 501));
    assert_eq!(flood(&limits, App::Holds, rapid), (Limit::Resets, 501));
    // Making us reset is the same (CVE-2025-8671).
    let provoked = |turn: u32| headers(turn * 2 + 1, WHOLE | END, &[GET, &line("A", "b")].concat());
    assert_eq!(flood(&limits, App::Holds, provoked), (Limit::Resets, 501));
    let zero = |turn: u32| [headers(turn * 2 + 1, WHOLE, POST), window_update(turn * 2 + 1, 0)].concat();
    assert_eq!(flood(&limits, App::Holds, zero), (Limit::Resets, 501));
}

#[test]
fn what_is_worth_its_frames_is_no_flood() {
    let mut tested = Tested::server(App::Answers);
    for turn in 0..20_000u32 {
        let id = turn * 2 + 1;
        tested.feed(&[headers(id, WHOLE, POST), data(id, END, b"x"), window_update(0, 5)].concat()).unwrap();
        // A third of them are given up.
        if turn % 3 == 0 {
            tested.feed(&headers(id + 40_000, WHOLE, POST)[..0]).unwrap();
        }
        tested.feed(&frame(kind::PING, 0, 0, &[0; 8])).unwrap();
        drain(&mut tested.connection);
    }
    // Streams that are given up late, or few of many.
    let mut tested = Tested::server(App::Answers);
    for turn in 0..3000u32 {
        let id = turn * 4 + 1;
        tested
            .feed(&[headers(id, WHOLE, POST), headers(id + 2, WHOLE | END, GET), reset(id, Code::CANCEL)].concat())
            .unwrap();
        drain(&mut tested.connection);
    }
    let mut tested = Tested::server(App::Answers);
    for turn in 0..3000u32 {
        let id = turn * 2 + 1;
        tested.feed(&headers(id, WHOLE, POST)).unwrap();
        tested.now += Duration::from_secs(2);
        tested.feed(&reset(id, Code::CANCEL)).unwrap();
        drain(&mut tested.connection);
    }
}

#[test]
fn a_new_interval_counts_anew() {
    let mut tested = Tested::server(App::Answers);
    for _ in 0..10 {
        for _ in 0..90 {
            tested.feed(&settings(&[])).unwrap();
        }
        tested.now += Duration::from_secs(10);
        drain(&mut tested.connection);
    }
}

#[test]
fn rfc_9113_10_5_answers_that_nobody_reads() {
    let limits = Limits { pings_max: 1_000_000, ..Limits::default() };
    let mut tested = Tested::fresh(App::Holds, &Settings::default(), &limits);
    tested.feed(&[PREFACE, &settings(&[])].concat()).unwrap();
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    let broken = (0..).find_map(|turn| tested.feed(&ping).err().map(|error| (error, turn))).unwrap();
    assert_eq!(broken.0, ConnectionError::Flood { limit: Limit::AnswersUnread });
    assert!(broken.1 < 8000 && tested.written().len() > 7000, "{broken:?}");
    // One that reads may ask as often as it likes.
    let mut tested = Tested::fresh(App::Holds, &Settings::default(), &limits);
    tested.feed(&[PREFACE, &settings(&[])].concat()).unwrap();
    for _ in 0..20_000 {
        tested.feed(&ping).unwrap();
        drain(&mut tested.connection);
    }
}

#[test]
fn interim_responses_that_nobody_reads() {
    let now = Instant::now();
    let mut client = Connection::client(&Settings::default(), &Limits::default(), now);
    client.receive(&settings(&[]), now).unwrap();
    let head = RequestHead::new(http::Method::GET, Version::HTTP_11, b"/", Fields::default());
    let key = client.send_request(&head, true, now).unwrap();
    for _ in 0..33 {
        client.receive(&headers(1, WHOLE, &block(&[(":status", "103")])), now).unwrap();
    }
    let (_, others) = read_all(&mut client, key);
    let Some(Received::Reset(reset)) = others.last() else { panic!("{others:?}") };
    assert_eq!((others.len(), reset.code), (33, Code::ENHANCE_YOUR_CALM));
}

#[test]
fn streams_whose_work_is_not_over_take_room() {
    let limits = Limits { streams_max: 10, resets_max: 1000, ..Limits::default() };
    let mut tested = Tested::fresh(App::Holds, &Settings::default(), &limits);
    tested.feed(&[PREFACE, &settings(&[])].concat()).unwrap();
    for turn in 0..100 {
        tested.feed(&[headers(turn * 2 + 1, WHOLE, POST), reset(turn * 2 + 1, Code::CANCEL)].concat()).unwrap();
    }
    assert_eq!((tested.requests.len(), tested.refused.len()), (20, 80));
}

#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let check = |begun: &[u8], expected: bool| {
        let mut tested = Tested::server(App::Holds);
        tested.feed(begun).unwrap();
        tested.now += Duration::from_secs(9);
        tested.feed(&[0]).unwrap();
        tested.now += Duration::from_secs(1);
        let ticked = tested.connection.tick(tested.now);
        assert_eq!(ticked.is_err(), expected, "{ticked:?}");
        if expected {
            assert_eq!((ticked, tested.written()[0].kind), (Err(ConnectionError::SlowHead), kind::GOAWAY));
        }
    };
    let open = headers(1, END, GET);
    check(&open, true);
    check(&open[..12], true);
    check(&[&headers(1, WHOLE, POST)[..], &data(1, 0, b"abc")[..10]].concat(), false);
}

#[test]
fn every_limit_has_a_name() {
    let names: std::collections::BTreeSet<&str> = Limit::ALL.iter().map(|limit| limit.as_str()).collect();
    assert_eq!(names.len(), Limit::ALL.len());
}
