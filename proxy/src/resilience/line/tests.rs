use super::*;

const STREAM: Class = Class::Stream { origin: 1, only: None };

/// Looks from there; is woken by that name.
fn look(line: &mut Line<&'static str>, ticket: Ticket, name: &'static str) -> Turn {
    line.turn(ticket, || name)
}

/// Three of one class, each of which has looked and found nothing.
fn three(line: &mut Line<&'static str>) -> [Ticket; 3] {
    let tickets = [(); 3].map(|()| line.join(Class::Connection));
    assert_eq!(look(line, tickets[0], "a"), Turn::Called);
    assert_eq!(look(line, tickets[0], "a"), Turn::Next);
    assert_eq!(look(line, tickets[1], "b"), Turn::Behind);
    assert_eq!(look(line, tickets[2], "c"), Turn::Behind);
    tickets
}

#[test]
fn the_first_to_come_is_the_first_to_be_called() {
    let mut line = Line::default();
    let [a, b, c] = three(&mut line);
    assert_eq!(line.call(), ["a"]);
    assert_eq!(line.call(), [""; 0], "it is on its way already");
    assert_eq!(look(&mut line, b, "b"), Turn::Behind);
    assert_eq!(look(&mut line, a, "a"), Turn::Called);
    assert_eq!(look(&mut line, a, "a"), Turn::Next, "a call is answered once");
    assert_eq!(line.leave(a), Some("b"), "there may be more than one");
    assert_eq!(look(&mut line, b, "b"), Turn::Called);
    assert_eq!(line.leave(b), Some("c"));
    let d = line.join(Class::Connection);
    assert_eq!(look(&mut line, d, "d"), Turn::Behind);
    assert_eq!(line.leave(c), Some("d"));
    assert_eq!((line.leave(d), line.is_empty()), (None, true));
}

#[test]
fn a_call_to_one_who_goes_away_reaches_the_next() {
    let mut line = Line::default();
    let [a, b, c] = three(&mut line);
    assert_eq!(line.call(), ["a"]);
    assert_eq!(line.leave(a), Some("b"));
    // It was woken, and goes before it looks.
    assert_eq!(line.leave(b), Some("c"));
    assert_eq!(look(&mut line, c, "c"), Turn::Called);
}

#[test]
fn who_goes_from_the_middle_calls_nobody() {
    let mut line = Line::default();
    let [a, b, c] = three(&mut line);
    assert_eq!(line.leave(b), None);
    assert_eq!(line.leave(b), None, "only once");
    assert_eq!((look(&mut line, c, "c"), line.len()), (Turn::Behind, 2));
    assert_eq!(line.leave(a), Some("c"));
}

#[test]
fn classes_do_not_hold_each_other_up() {
    let mut line = Line::default();
    let [a, ..] = three(&mut line);
    let only = Class::Stream { origin: 1, only: Some("127.0.0.1:1".parse().unwrap()) };
    let (s, o) = (line.join(STREAM), line.join(only));
    for (ticket, name) in [(s, "s"), (o, "o")] {
        assert_eq!(look(&mut line, ticket, name), Turn::Called, "the first of its class looks at once");
        assert_eq!(look(&mut line, ticket, name), Turn::Next);
    }
    assert_eq!(line.call(), ["a", "s", "o"], "all fronts, in the order in which they came");
    assert_eq!(line.leave(s), None, "nobody is behind it");
    assert_eq!(line.leave(a), Some("b"));
    assert_eq!((look(&mut line, o, "o"), line.len()), (Turn::Called, 3));
}
