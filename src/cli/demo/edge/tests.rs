//! Two edges in conversation: what the flows rest on holds without the switch.

use std::thread;

use super::*;
use crate::control::authority::{Authority, Purpose};
use crate::time::Wall;

fn keys(authority: &Authority, name: &str) -> Keys {
    let issued = authority.issue(&[name], Purpose::Both).unwrap();
    Keys::new(&issued.cert_pem, &issued.key_pem, authority.root_pem()).unwrap()
}

fn pair(tls: bool) -> (Edge, Edge) {
    let now = crate::cli::demo::client::now().0;
    let authority = Authority::new("edges", Wall(now - 1), Wall(now + 3_600_000_000)).unwrap();
    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let places: Vec<_> = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
    let mut made = listeners.into_iter().zip(["a.example", "b.example"]).enumerate().map(
        |(n, (listener, domain))| {
            let fqdn = format!("edge.{domain}");
            let keys = tls.then(|| keys(&authority, &fqdn));
            let identity = Identity {
                domain: domain.to_owned(),
                fqdn,
                transport: if tls { "TLS" } else { "TCP" },
            };
            let other = if n == 0 { "edge.b.example" } else { "edge.a.example" };
            Edge::start(identity, keys, listener, places[1 - n], other).unwrap()
        },
    );
    (made.next().unwrap(), made.next().unwrap())
}

/// F1, F5, F7 and F8 between two of them.
#[test]
fn an_edge_holds_its_own_flows_against_another() {
    for tls in [false, true] {
        let (mut one, mut other) = pair(tls);
        let far = thread::spawn(move || {
            let asked = other.hear("SUBSCRIBE", "w").unwrap();
            other.reply(&asked, "200 OK", "Expires: 7200", "").unwrap();
            let state = "Event: presence\nSubscription-State: active;expires=7200\nContent-Type: application/pidf+xml";
            let body = document("bob", "b.example", "open", "busy");
            other.request("NOTIFY", "w", state, &body).unwrap();
            other.answered("w", "200").unwrap();
            let invite = other.hear("INVITE", "s").unwrap();
            assert!(invite.body.contains("m=message 5060 sip null"));
            other.reply(&invite, "101 Progress Report", "", "").unwrap();
            let body = offer("sip:bob@b.example");
            other.reply(&invite, "200 OK", "Content-Type: application/sdp", &body).unwrap();
            other.hear("ACK", "s").unwrap();
            let text = other.hear("MESSAGE", "s").unwrap();
            assert_eq!(text.body, "hello");
            other.reply(&text, "200 OK", "", "").unwrap();
            let bye = other.hear("BYE", "s").unwrap();
            other.reply(&bye, "200 OK", "", "").unwrap();
        });
        one.begin("SUBSCRIBE", "w", "ann", "bob@b.example", "", "").unwrap();
        one.answered("w", "200").unwrap();
        let told = one.hear("NOTIFY", "w").unwrap();
        assert!(told.body.contains("busy"));
        // The route goes back as it came, what stands behind the bracket included.
        assert_eq!(told.header("Route"), call::record_route(&one.identity));
        one.reply(&told, "200 OK", "", "").unwrap();
        one.begin("INVITE", "s", "ann", "bob@b.example", INVITE, &offer("null")).unwrap();
        one.answered("s", "200").unwrap();
        one.request("ACK", "s", "", "").unwrap();
        one.request("MESSAGE", "s", "", "hello").unwrap();
        one.answered("s", "200").unwrap();
        one.request("BYE", "s", "", "").unwrap();
        one.answered("s", "200").unwrap();
        far.join().unwrap();
        assert!(one.by_rsip < one.read, "routes with colons are not for rsip");
    }
}
