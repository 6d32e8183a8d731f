//! Dialogs: their states, what is echoed, and what is kept.

use super::*;
use crate::sip::message::Index;

const OWN: &str = "imp1.fabrikam.example";

/// As a front end of Skype for Business relays it (shape of the composed sample).
const INVITE: &str = "INVITE sip:bob@fabrikam.example:5061;transport=tls SIP/2.0\r\n\
Record-Route: <sip:pool-n1.contoso.example:5061;transport=tls;ms-fe=fe-07;opaque=state:F:Ci.R81c40;lr;ms-route-sig=wdii>;ms-rrsig=aTP7;tag=7C64\r\n\
Via: SIP/2.0/TLS 192.0.2.18:5061;branch=z9hG4bK6ED38A32\r\n\
Max-Forwards: 68\r\n\
Content-Length: 0\r\n\
Record-Route: <sip:pool-n1.contoso.example:5061;transport=tls;lr>;tag=D852\r\n\
From: \"Zoe, L\"<sip:zoe@contoso.example>;tag=be559c854d;epid=787f6c813e\r\n\
To: <sip:bob@fabrikam.example>;epid=54fa23d827\r\n\
Call-ID: 6e2aad4ebbd0c6d548d393c5f96e75c4\r\n\
CSeq: 1 INVITE\r\n\
Contact: <sip:zoe@contoso.example;opaque=user:epid:exEHxCV3;gruu>\r\n\r\n";

fn with<R>(text: &str, work: impl FnOnce(Message<'_>) -> R) -> R {
    let mut index = Index::default();
    work(index.read(text.as_bytes()).unwrap())
}

fn called() -> Dialog {
    with(INVITE, |request| Dialog::uas(&request, "t1.g", OWN)).unwrap()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

/// Table: `dialog.table`.
#[test]
fn the_table_of_states_and_inputs() {
    use Input::{Ended, Gone, Notified, Provisional, Refused, Success};
    use State::{Calling, Confirmed, Early, Over};
    let mut table = String::new();
    for state in [Calling, Early, Confirmed, Over] {
        for input in [Provisional, Success, Notified, Gone, Refused, Ended] {
            let next = state.after(input);
            table +=
                &format!("{:<10} {:<12} -> {next:?}\n", format!("{state:?}"), format!("{input:?}"));
        }
    }
    crate::stdx::table::check("src/sip/dialog.table", &table, include_str!("dialog.table"));
}

/// RFC 3261, 12.1.1 and 12.2.1.1: routes in order, to the octet, behind the bracket too.
#[test]
fn a_called_party_echoes_what_it_was_sent() {
    let mut dialog = called();
    let text = written(|out| dialog.request("MESSAGE", out).end());
    assert_eq!(
        text,
        "MESSAGE sip:zoe@contoso.example;opaque=user:epid:exEHxCV3;gruu SIP/2.0\r\n\
Route: <sip:pool-n1.contoso.example:5061;transport=tls;ms-fe=fe-07;opaque=state:F:Ci.R81c40;lr;ms-route-sig=wdii>;ms-rrsig=aTP7;tag=7C64\r\n\
Route: <sip:pool-n1.contoso.example:5061;transport=tls;lr>;tag=D852\r\n\
Max-Forwards: 70\r\n\
From: <sip:bob@fabrikam.example>;epid=54fa23d827;tag=t1.g\r\n\
To: \"Zoe, L\"<sip:zoe@contoso.example>;tag=be559c854d;epid=787f6c813e\r\n\
Call-ID: 6e2aad4ebbd0c6d548d393c5f96e75c4\r\n\
CSeq: 1 MESSAGE\r\n\
Content-Length: 0\r\n\r\n"
    );
    assert_eq!(dialog.cseq(), 1);
}

const OK: &str = "SIP/2.0 200 OK\r\n\
Via: SIP/2.0/TLS imp1.fabrikam.example:5061;branch=z9hG4bK1\r\n\
From: <sip:bob@fabrikam.example>;tag=t1.g\r\n\
To: <sip:alice@contoso.example>;epid=787f6c813e;tag=a1bda26c81\r\n\
Call-ID: c\r\n\
CSeq: 1 INVITE\r\n\
Record-Route: <sip:edge.contoso.example:5061;transport=tls;lr>;ms-rrsig=x, <sip:IMP1.fabrikam.example:5061;transport=tls;lr>\r\n\
Record-Route: <sip:near.fabrikam.example;lr>\r\n\
Contact: <sip:alice@contoso.example;opaque=user:epid:q;gruu>\r\n\
Content-Length: 0\r\n\r\n";

fn calling() -> Dialog {
    Dialog::uac("c", "t1.g", "sip:bob@fabrikam.example", "sip:alice@contoso.example")
}

/// RFC 3261, 12.1.2: reversed, and without our own.
#[test]
fn a_caller_learns_from_the_answer() {
    let mut dialog = calling();
    let text = written(|out| dialog.request("INVITE", out).end());
    assert!(text.starts_with("INVITE sip:alice@contoso.example SIP/2.0\r\nMax-Forwards: 70\r\n"));
    assert!(text.contains("\r\nTo: <sip:alice@contoso.example>\r\n"));
    assert!(text.contains("\r\nFrom: <sip:bob@fabrikam.example>;tag=t1.g\r\n"));
    assert_eq!(with(OK, |ok| dialog.learn(&ok, OWN)), Ok(true));
    assert_eq!(dialog.state(), State::Confirmed);
    let text = written(|out| dialog.again("ACK", 1, out).end());
    assert!(text.starts_with(
        "ACK sip:alice@contoso.example;opaque=user:epid:q;gruu SIP/2.0\r\n\
Route: <sip:near.fabrikam.example;lr>\r\n\
Route: <sip:edge.contoso.example:5061;transport=tls;lr>;ms-rrsig=x\r\n"
    ));
    assert!(
        text.contains("\r\nTo: <sip:alice@contoso.example>;epid=787f6c813e;tag=a1bda26c81\r\n")
    );
    assert!(text.contains("\r\nCSeq: 1 ACK\r\n"));
    let other = OK.replace("a1bda26c81", "other");
    assert_eq!(with(&other, |ok| dialog.learn(&ok, OWN)), Ok(false));
    assert_eq!(dialog.remote_tag(), b"a1bda26c81");
}

/// Several 18x with tags of their own, since they fork inside: the 2xx decides.
#[test]
fn provisional_answers_of_others_do_not_stick() {
    let mut dialog = calling();
    let ringing = OK.replace("200 OK", "180 Ringing").replace("a1bda26c81", "first");
    assert_eq!(with(&ringing, |it| dialog.learn(&it, OWN)), Ok(true));
    assert_eq!((dialog.state(), dialog.remote_tag()), (State::Early, &b"first"[..]));
    let trying = OK.replace("200 OK", "100 Trying").replace(";tag=a1bda26c81", "");
    assert_eq!(with(&trying, |it| dialog.learn(&it, OWN)), Ok(true));
    assert_eq!(with(OK, |it| dialog.learn(&it, OWN)), Ok(true));
    assert_eq!((dialog.state(), dialog.remote_tag()), (State::Confirmed, &b"a1bda26c81"[..]));
    let mut dialog = calling();
    let busy = OK.replace("200 OK", "486 Busy Here");
    assert_eq!(with(&busy, |it| dialog.learn(&it, OWN)), Ok(true));
    assert_eq!(dialog.state(), State::Over);
}

/// RFC 6665, 4.4.1.
#[test]
fn a_notify_that_overtakes_the_answer_makes_the_dialog() {
    let notify = "NOTIFY sip:imp1.fabrikam.example:5061;transport=tls SIP/2.0\r\n\
Via: SIP/2.0/TLS edge.contoso.example:5061;branch=z9hG4bK1\r\n\
Max-Forwards: 70\r\n\
Record-Route: <sip:edge.contoso.example:5061;transport=tls;lr>\r\n\
Record-Route: <sip:pool.contoso.example:5061;transport=tls;lr>\r\n\
From: <sip:alice@contoso.example>;tag=e;epid=1\r\n\
To: <sip:bob@fabrikam.example>;tag=t1.g\r\n\
Call-ID: c\r\n\
CSeq: 7 NOTIFY\r\n\
Contact: <sip:pool.contoso.example:5061;transport=tls>\r\n\
Event: presence\r\n\
Subscription-State: active\r\n\
Content-Length: 0\r\n\r\n";
    let mut dialog = calling();
    written(|out| dialog.request("SUBSCRIBE", out).end());
    with(notify, |it| {
        assert_eq!(dialog.learn(&it, OWN), Ok(true));
        assert_eq!(dialog.hears(&it), Ok(()));
    });
    assert_eq!(dialog.heard(), Some(7));
    let text = written(|out| dialog.request("SUBSCRIBE", out).end());
    assert!(text.starts_with(
        "SUBSCRIBE sip:pool.contoso.example:5061;transport=tls SIP/2.0\r\n\
Route: <sip:edge.contoso.example:5061;transport=tls;lr>\r\n\
Route: <sip:pool.contoso.example:5061;transport=tls;lr>\r\n"
    ));
    assert!(text.contains("\r\nTo: <sip:alice@contoso.example>;tag=e;epid=1\r\n"));
    assert!(text.contains("\r\nCSeq: 2 SUBSCRIBE\r\n"));
}

/// RFC 3261, 12.2.1.1: the target goes to the end of the route of a strict router.
#[test]
fn a_strict_router_gets_the_request_uri() {
    let strict = INVITE.replace(";lr;ms-route-sig=wdii", ";lrx=on;ms-route-sig=wdii");
    let mut dialog = with(&strict, |it| Dialog::uas(&it, "t1.g", OWN)).unwrap();
    let text = written(|out| dialog.request("BYE", out).end());
    assert!(text.starts_with(
        "BYE sip:pool-n1.contoso.example:5061;transport=tls;ms-fe=fe-07;opaque=state:F:Ci.R81c40;lrx=on;ms-route-sig=wdii SIP/2.0\r\n\
Route: <sip:pool-n1.contoso.example:5061;transport=tls;lr>;tag=D852\r\n\
Route: <sip:zoe@contoso.example;opaque=user:epid:exEHxCV3;gruu>\r\n"
    ));
}

/// RFC 3261, 12.2.2.
#[test]
fn requests_come_in_turn_and_from_the_same_end() {
    let mut dialog = called();
    let later = INVITE.replace("CSeq: 1 INVITE", "CSeq: 5 INVITE").replace("exEHxCV3", "moved");
    assert_eq!(with(&later, |it| dialog.hears(&it)), Ok(()));
    assert_eq!(dialog.target(), b"sip:zoe@contoso.example;opaque=user:epid:moved;gruu");
    let lower =
        INVITE.replace("CSeq: 1 INVITE", "CSeq: 4 MESSAGE").replace("INVITE sip", "MESSAGE sip");
    assert_eq!(with(&lower, |it| dialog.hears(&it)).unwrap_err().status, 500);
    let stranger = later.replace("be559c854d", "another");
    assert_eq!(with(&stranger, |it| dialog.hears(&it)).unwrap_err().status, 481);
    let text =
        INVITE.replace("CSeq: 1 INVITE", "CSeq: 6 MESSAGE").replace("INVITE sip", "MESSAGE sip");
    assert_eq!(with(&text.replace("exEHxCV3", "no"), |it| dialog.hears(&it)), Ok(()));
    assert_eq!(dialog.target(), b"sip:zoe@contoso.example;opaque=user:epid:moved;gruu");
}

#[test]
fn what_is_kept_is_the_same_dialog_above_the_ceiling() {
    let mut dialog = called();
    for _ in 0..905 {
        dialog.request("MESSAGE", &mut Vec::new()).end();
    }
    assert!(dialog.is_low());
    dialog.reserve();
    assert!(!dialog.is_low());
    let mut kept = Vec::new();
    dialog.encode(&mut kept);
    let mut fields = Fields::new(&kept);
    let mut again = Dialog::decode(&mut fields).unwrap();
    assert!(fields.is_empty() && again.is_low());
    let text = written(|out| again.request("MESSAGE", out).end());
    assert!(text.contains("\r\nCSeq: 1906 MESSAGE\r\n"), "{text}");
    let route = written(|out| dialog.again("MESSAGE", 1906, out).end());
    assert_eq!(text, route);
}

/// Octets of a store that lies are an error and nothing worse.
#[test]
fn damaged_octets_are_refused() {
    let mut kept = Vec::new();
    called().encode(&mut kept);
    for cut in 0..kept.len() {
        let part = kept.get(..cut).unwrap();
        assert_eq!(Dialog::decode(&mut Fields::new(part)), Err(Undecodable));
    }
    for at in 0..kept.len() {
        for value in [0, 1, 127, 255] {
            let mut other = kept.clone();
            *other.get_mut(at).unwrap() = value;
            drop(Dialog::decode(&mut Fields::new(&other)));
        }
    }
}
