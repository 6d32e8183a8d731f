//! Every row of both tables of errors.

use super::*;
use StanzaFault as F;

/// Condition, about a full address, about a bare one, and what Lync is told.
const TO_SIP: &[(F, u16, u16, u16)] = &[
    (F::BadRequest, 400, 400, 400),
    (F::Conflict, 400, 400, 400),
    (F::FeatureNotImplemented, 405, 501, 501),
    (F::Forbidden, 403, 603, 403),
    (F::Gone, 410, 410, 410),
    (F::InternalServerError, 500, 500, 500),
    (F::ItemNotFound, 404, 604, 404),
    (F::JidMalformed, 400, 400, 404),
    (F::NotAcceptable, 406, 606, 406),
    (F::NotAllowed, 403, 403, 403),
    (F::NotAuthorized, 403, 403, 403),
    (F::PolicyViolation, 403, 403, 403),
    (F::RecipientUnavailable, 480, 600, 480),
    (F::Redirect, 480, 480, 480),
    (F::RegistrationRequired, 403, 403, 403),
    (F::RemoteServerNotFound, 404, 404, 404),
    (F::RemoteServerTimeout, 504, 504, 504),
    (F::ResourceConstraint, 500, 500, 500),
    (F::ServiceUnavailable, 403, 403, 480),
    (F::SubscriptionRequired, 400, 400, 403),
    (F::UndefinedCondition, 400, 400, 400),
    (F::UnexpectedRequest, 400, 400, 400),
];

const ALL_ASKED: [Asked; 5] =
    [Asked::Invite, Asked::Reinvite, Asked::Message, Asked::Subscribe, Asked::Other];

fn answer(told: Told<'_>, asked: Asked, profile: Profile) -> u16 {
    to_sip(&told, asked, profile).status
}

#[test]
fn errors_of_xmpp_to_sip() {
    assert_eq!(TO_SIP.len(), F::ALL.len());
    for &(fault, full, bare, lync) in TO_SIP {
        let told = Told::plain(fault);
        let about_full = Told { full: true, ..told };
        assert_eq!(answer(about_full, Asked::Message, Profile::Xmpp), full, "{fault}");
        assert_eq!(answer(told, Asked::Message, Profile::Xmpp), bare, "{fault}");
        assert_eq!(answer(about_full, Asked::Message, Profile::Lync), lync, "{fault}");
        assert_eq!(answer(told, Asked::Message, Profile::Lync), lync, "{fault}");
    }
}

#[test]
fn errors_that_go_by_what_was_asked() {
    let method = Told { method: true, ..Told::plain(F::ServiceUnavailable) };
    let lost = Told { unresolved: true, ..Told::plain(F::RemoteServerNotFound) };
    let timeout = Told::plain(F::RemoteServerTimeout);
    let unexpected = Told { full: true, ..Told::plain(F::UnexpectedRequest) };
    for profile in [Profile::Xmpp, Profile::Lync] {
        assert_eq!(answer(method, Asked::Message, profile), 405);
        assert_eq!(answer(lost, Asked::Invite, profile), 408);
        assert_eq!(answer(lost, Asked::Message, profile), 480);
        assert_eq!(answer(timeout, Asked::Invite, profile), 408);
        assert_eq!(answer(timeout, Asked::Subscribe, profile), 504);
    }
    assert_eq!(answer(unexpected, Asked::Reinvite, Profile::Xmpp), 491);
    assert_eq!(answer(unexpected, Asked::Reinvite, Profile::Lync), 400);
    assert_eq!(answer(unexpected, Asked::Invite, Profile::Xmpp), 400);
    assert_eq!(answer(Told::plain(F::NotAcceptable), Asked::Invite, Profile::Lync), 488);
    assert_eq!(answer(Told::plain(F::NotAcceptable), Asked::Reinvite, Profile::Lync), 488);
}

#[test]
fn what_moved_says_where() {
    let new = Address::parse(r"o\27malley@sip.example").unwrap();
    let gone = Told { moved: Some(&new), ..Told::plain(F::Gone) };
    let redirect = Told { moved: Some(&new), ..Told::plain(F::Redirect) };
    let contact = Some(("Contact", "<sip:o'malley@sip.example>".to_owned()));
    let moved = to_sip(&gone, Asked::Message, Profile::Xmpp);
    assert_eq!(moved, Answer { status: 301, companion: contact.clone() });
    let moved = to_sip(&redirect, Asked::Message, Profile::Xmpp);
    assert_eq!(moved, Answer { status: 302, companion: contact });
    for (told, status) in [(gone, 410), (redirect, 480)] {
        let answer = to_sip(&told, Asked::Message, Profile::Lync);
        assert_eq!(answer, Answer { status, companion: None });
    }
}

#[test]
fn no_answer_lacks_its_companion_or_says_that_the_server_is_out() {
    let profiles = [Profile::Lync, Profile::Jabber, Profile::Xmpp];
    for (&fault, asked) in F::ALL.iter().flat_map(|f| ALL_ASKED.map(|a| (f, a))) {
        for (profile, bits) in profiles.iter().flat_map(|p| (0..8).map(move |b| (*p, b))) {
            let told = Told {
                fault,
                moved: None,
                full: bits & 1 > 0,
                method: bits & 2 > 0,
                unresolved: bits & 4 > 0,
            };
            let answer = to_sip(&told, asked, profile);
            assert_ne!(answer.status, 503, "{told:?}");
            assert!(answer.status != 408 || asked.is_invite(), "{told:?}");
            assert!(profile != Profile::Lync || answer.status < 600, "{told:?}");
            let needs = matches!(answer.status, 301 | 302 | 405 | 406);
            assert_eq!(answer.companion.is_some(), needs, "{told:?}");
            assert!(!matches!(answer.status, 401 | 407 | 415 | 420 | 423 | 489), "{told:?}");
        }
    }
}

#[test]
fn responses_of_sip_to_xmpp() {
    use FaultType::{Auth, Cancel, Modify, Wait};
    #[rustfmt::skip]
    let rows: &[(&[u16], F, FaultType)] = &[
        (&[300, 302, 305, 399], F::Redirect, Modify),
        (&[410], F::Gone, Cancel),
        (&[400, 402, 493, 418, 499], F::BadRequest, Modify),
        (&[401], F::NotAuthorized, Auth),
        (&[407], F::RegistrationRequired, Auth),
        (&[403], F::Forbidden, Auth),
        (&[404, 481, 484, 485, 604], F::ItemNotFound, Cancel),
        (&[405, 420, 439, 501], F::FeatureNotImplemented, Cancel),
        (&[380, 406, 415, 416, 421, 482, 483, 488, 505, 606], F::NotAcceptable, Modify),
        (&[408, 504], F::RemoteServerTimeout, Wait),
        (&[413, 414, 489, 513], F::PolicyViolation, Modify),
        (&[440], F::PolicyViolation, Wait),
        (&[423], F::ResourceConstraint, Wait),
        (&[430, 480, 486, 487, 600, 603, 601, 699], F::RecipientUnavailable, Wait),
        (&[491], F::UnexpectedRequest, Wait),
        (&[500, 506, 599], F::InternalServerError, Cancel),
        (&[503], F::InternalServerError, Wait),
        (&[502], F::RemoteServerNotFound, Cancel),
    ];
    for (statuses, fault, fault_type) in rows {
        for &status in *statuses {
            let verdict = to_xmpp(status, None, false, Profile::Xmpp);
            assert_eq!((verdict.fault, verdict.fault_type), (*fault, *fault_type), "{status}");
            assert_eq!(verdict.moved, None);
        }
    }
    for status in [500, 506] {
        assert_eq!(to_xmpp(status, None, true, Profile::Xmpp).fault_type, Wait);
    }
    // All others have some meaning.
    for status in 0..=1000 {
        to_xmpp(status, Some(b"sip:a@b"), true, Profile::Lync);
    }
}

#[test]
fn where_somebody_moved_is_told_if_it_is_an_address() {
    let contact: Option<&[u8]> = Some(b"sip:new@sip.example;transport=tls");
    let new = Some(Address::parse("new@sip.example").unwrap());
    for (status, fault) in [(300, F::Redirect), (301, F::Gone), (302, F::Redirect)] {
        let verdict = to_xmpp(status, contact, false, Profile::Xmpp);
        assert_eq!((verdict.fault, verdict.moved), (fault, new.clone()), "{status}");
    }
    assert_eq!(to_xmpp(301, None, false, Profile::Xmpp).fault, F::ItemNotFound);
    let useless = to_xmpp(301, Some(b"tel:+1555"), false, Profile::Xmpp);
    assert_eq!((useless.fault, useless.moved), (F::ItemNotFound, None));
    for status in [380, 410, 404, 480] {
        assert_eq!(to_xmpp(status, contact, false, Profile::Xmpp).moved, None, "{status}");
    }
}

#[test]
fn what_an_operator_hears_of() {
    let alarm = |status, profile| to_xmpp(status, None, false, profile).alarm;
    for status in [401, 407] {
        assert_eq!(alarm(status, Profile::Xmpp), Some(Alarm::Challenged));
    }
    for status in [482, 483] {
        assert_eq!(alarm(status, Profile::Lync), Some(Alarm::Loop));
    }
    assert_eq!(alarm(504, Profile::Lync), Some(Alarm::EdgeCheck));
    assert_eq!(alarm(504, Profile::Xmpp), None);
    assert_eq!(alarm(480, Profile::Lync), None);
}

#[test]
fn texts_are_carried_short_clean_and_without_addresses() {
    assert_eq!(carried_text("Busy\r\nVia: x").as_deref(), Some("Busy Via: x"));
    assert_eq!(carried_text("a\u{1}b\u{85}").as_deref(), Some("a\u{FFFD}b"));
    assert_eq!(carried_text(&"é".repeat(200)).unwrap().len(), 256);
    assert_eq!(carried_text(" \r\n"), None);
    for text in ["no route to 10.1.2.3", "at 10.1.2.3:5061.", "(2001:db8::1)", "[fe80::1]:5060"] {
        assert_eq!(carried_text(text), None, "{text}");
    }
    assert_eq!(carried_text("add 5: x").as_deref(), Some("add 5: x"));
}
