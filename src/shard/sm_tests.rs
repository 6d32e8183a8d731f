//! What a client sent: counted, waited for, and heard once.

use super::*;

fn number(inbound: &mut Inbound, digest: u64) -> u32 {
    match inbound.receive(digest) {
        Received::New(number) => number,
        Received::Again => panic!("it was heard before"),
    }
}

#[test]
fn only_what_has_no_gap_before_it_is_counted() {
    let mut inbound = Inbound::default();
    let numbers: Vec<_> = (0..4).map(|digest| number(&mut inbound, digest)).collect();
    inbound.done(numbers[1]);
    assert_eq!(inbound.handled(), 0);
    inbound.done(numbers[0]);
    assert_eq!(inbound.handled(), 2);
    inbound.done(numbers[0]);
    inbound.done(99);
    assert_eq!(inbound.handled(), 2);
    inbound.done(numbers[3]);
    inbound.done(numbers[2]);
    assert_eq!(inbound.handled(), 4);
}

#[test]
fn the_count_wraps() {
    let mut inbound = Inbound { handled: u32::MAX - 1, next: u32::MAX - 1, ..Inbound::default() };
    let numbers: Vec<_> = (0..4).map(|digest| number(&mut inbound, digest)).collect();
    assert_eq!(numbers, [u32::MAX - 1, u32::MAX, 0, 1]);
    for number in numbers.into_iter().rev() {
        inbound.done(number);
    }
    assert_eq!(inbound.handled(), 2);
}

#[test]
fn who_asked_hears_it_when_all_before_is_handed_on() {
    let mut inbound = Inbound::default();
    inbound.ask();
    assert!(!inbound.take_due(), "nothing is waited for");
    let (a, b) = (number(&mut inbound, 1), number(&mut inbound, 2));
    inbound.ask();
    let c = number(&mut inbound, 3);
    inbound.done(b);
    assert!(!inbound.take_due());
    inbound.done(a);
    assert!(inbound.take_due());
    assert!(!inbound.take_due(), "once");
    inbound.done(c);
    assert!(!inbound.take_due(), "nobody asked for this one");
}

#[test]
fn what_is_repeated_after_a_resumption_is_passed_over() {
    let mut inbound = Inbound::default();
    let numbers: Vec<_> = (0..3).map(|digest| number(&mut inbound, digest)).collect();
    inbound.done(numbers[0]);
    inbound.lost();
    assert_eq!(inbound.handled(), 1);
    inbound.resumed();
    inbound.done(numbers[1]);
    assert_eq!(inbound.handled(), 1, "the client has not said it on this stream yet");
    assert_eq!(inbound.receive(1), Received::Again);
    assert_eq!(inbound.handled(), 2);
    assert_eq!(inbound.receive(2), Received::Again);
    assert_eq!(number(&mut inbound, 2), 3, "the same again is another one");
    inbound.done(numbers[2]);
    assert_eq!(inbound.handled(), 3);
}

#[test]
fn the_first_that_differs_ends_it() {
    let mut inbound = Inbound::default();
    let numbers: Vec<_> = (0..3).map(|digest| number(&mut inbound, digest)).collect();
    inbound.lost();
    inbound.resumed();
    assert_eq!(inbound.receive(0), Received::Again);
    let new = number(&mut inbound, 77);
    let again = number(&mut inbound, 1);
    inbound.done(numbers[1]);
    inbound.done(numbers[2]);
    inbound.done(numbers[0]);
    assert_eq!(inbound.handled(), 1);
    inbound.done(new);
    inbound.done(again);
    assert_eq!(inbound.handled(), 3);
}

#[test]
fn too_much_holds_up_and_less_relieves() {
    let mut inbound = Inbound::default();
    let numbers: Vec<_> =
        (0..UNHANDLED_STANZAS_MAX as u64).map(|digest| number(&mut inbound, digest)).collect();
    assert!(inbound.is_full());
    inbound.held_up = true;
    let enough = UNHANDLED_STANZAS_MAX - UNHANDLED_STANZAS_LOW;
    for number in &numbers[1..enough] {
        inbound.done(*number);
    }
    assert!(!inbound.take_relief());
    inbound.done(numbers[0]);
    assert!(inbound.take_relief());
    assert!(!inbound.take_relief());
    inbound.lost();
    inbound.resumed();
    assert!(!inbound.is_full(), "repetitions are read in any case");
}
