use super::*;

const FIRST: Request = Request { idempotent: true, replayable: true, attempt: 0 };

fn reset(connection_reused: bool, bytes_sent: bool, response_begun: bool) -> Failure {
    Failure::Reset { connection_reused, bytes_sent, response_begun }
}

fn retried(on: RetryOn, charged: bool) -> Verdict {
    Verdict::Retry { on, charged }
}

#[test]
fn by_default_all_but_gateway_errors_alone_is_retried() {
    let check = |failure: Failure, expected: Verdict| {
        assert_eq!(decide(&Retry::default(), FIRST, failure), expected, "{failure:?}");
    };
    check(Failure::Connect, retried(RetryOn::ConnectFailure, false));
    check(Failure::RefusedStream, retried(RetryOn::RefusedStream, false));
    check(reset(false, false, false), retried(RetryOn::Reset, false));
    check(reset(false, true, false), retried(RetryOn::Reset, true));
    check(reset(true, true, false), retried(RetryOn::Reset, false));
    check(reset(true, true, true), retried(RetryOn::Reset, true));
    check(Failure::Status(500), retried(RetryOn::ServerError, true));
    check(Failure::Status(503), retried(RetryOn::ServerError, true));
    check(Failure::Status(200), Verdict::No(Refusal::Success));
    check(Failure::Status(499), Verdict::No(Refusal::Success));
    check(Failure::Timeout, Verdict::No(Refusal::TooLate));
}

#[test]
fn what_may_have_had_an_effect_is_not_doubled() {
    let check = |methods: RetryMethods, failure: Failure, expected: Verdict| {
        let policy = Retry { methods, ..Retry::default() };
        assert_eq!(
            decide(&policy, Request { idempotent: false, ..FIRST }, failure),
            expected,
            "{methods:?} {failure:?}"
        );
    };
    let refused = Verdict::No(Refusal::NotIdempotent);
    check(RetryMethods::Idempotent, Failure::Connect, retried(RetryOn::ConnectFailure, false));
    check(RetryMethods::Idempotent, Failure::RefusedStream, retried(RetryOn::RefusedStream, false));
    check(RetryMethods::Idempotent, reset(true, false, false), retried(RetryOn::Reset, false));
    check(RetryMethods::Idempotent, reset(true, true, false), refused);
    check(RetryMethods::Idempotent, reset(false, true, false), refused);
    check(RetryMethods::Idempotent, Failure::Status(503), refused);
    check(RetryMethods::Any, reset(false, true, false), retried(RetryOn::Reset, true));
    check(RetryMethods::Any, Failure::Status(503), retried(RetryOn::ServerError, true));
}

#[test]
fn the_request_has_its_bounds() {
    let check = |request: Request, expected: Verdict| {
        assert_eq!(decide(&Retry::default(), request, Failure::Connect), expected)
    };
    check(Request { attempt: 1, ..FIRST }, retried(RetryOn::ConnectFailure, false));
    check(Request { attempt: 2, ..FIRST }, Verdict::No(Refusal::Attempts));
    check(Request { replayable: false, ..FIRST }, Verdict::No(Refusal::NotReplayable));
    let none = Retry { attempts: 0, ..Retry::default() };
    assert_eq!(decide(&none, FIRST, Failure::Connect), Verdict::No(Refusal::Attempts));
}

#[test]
fn only_named_words_count() {
    let check = |on: &[RetryOn], failure: Failure, expected: bool| {
        let policy = Retry { on: on.iter().copied().collect(), ..Retry::default() };
        let retried = matches!(decide(&policy, FIRST, failure), Verdict::Retry { .. });
        assert_eq!(retried, expected, "{on:?} {failure:?}");
    };
    check(&[], Failure::Connect, false);
    check(&[RetryOn::ConnectFailure], Failure::Connect, true);
    check(&[RetryOn::ConnectFailure], reset(false, true, false), false);
    check(&[RetryOn::GatewayError], Failure::Status(502), true);
    check(&[RetryOn::GatewayError], Failure::Status(500), false);
    check(&[RetryOn::GatewayError], reset(false, true, false), false);
    check(&[RetryOn::ServerError], reset(false, true, false), true);
    check(&[RetryOn::ServerError], Failure::Connect, true);
    check(&[RetryOn::Reset], Failure::RefusedStream, true);
    check(&[RetryOn::Reset], Failure::Status(504), false);
}

#[test]
fn methods_are_told_apart() {
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert!(is_idempotent(method), "{method}");
    }
    for method in ["POST", "PATCH", "CONNECT", "get", "QUERY", ""] {
        assert!(!is_idempotent(method), "{method}");
    }
}
