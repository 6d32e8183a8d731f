//! SCRAM against the RFCs' examples and against our own client.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::SaslFault;
use super::scram::*;
use super::scram_client::{self, Binding};

const DECOY: Decoy<'_> = Decoy { secret: b"of this installation", iterations: 4_096 };

fn credentials(hash: Hash, password: &str, salt: &[u8]) -> Credentials {
    let keys = derive(hash, password, salt, 4_096).unwrap();
    Credentials { salt: salt.to_vec(), iterations: 4_096, keys }
}

fn bindings() -> Bindings {
    Bindings {
        tls_exporter: Some(b"exported".to_vec()),
        tls_server_end_point: Some(b"certificate".to_vec()),
    }
}

fn start(hash: Hash, plus: bool) -> Start {
    Start::new(hash, plus, plus, "example.com", if plus { bindings() } else { Bindings::default() })
}

#[test]
fn examples_of_the_rfcs() {
    // RFC 5802, 5 and RFC 7677, 3.
    for (hash, salt, first, nonce, server_first, last, server_last) in [
        (
            Hash::Sha1,
            "QSXCR+Q6sek8bf92",
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "3rfcNHYJY1ZVvWVs7j",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Hash::Sha256,
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ] {
        let known = credentials(hash, "pencil", &STANDARD.decode(salt).unwrap());
        verify_plain(hash, "pencil", &known).unwrap();
        assert_eq!(verify_plain(hash, "pen", &known), Err(SaslFault::NotAuthorized));
        let need = start(hash, false).client_first(first.as_bytes()).unwrap();
        assert_eq!((need.username(), need.hash()), ("user", hash));
        let (message, wait) = need.answer(Some(known), &DECOY, nonce);
        assert_eq!(message, server_first);
        let success = wait.client_final(last.as_bytes()).unwrap();
        assert_eq!((&*success.server_final, &*success.username), (server_last, "user"));

        let client_nonce = first.rsplit_once("r=").unwrap().1;
        let (message, client) =
            scram_client::start(hash, &Binding::Unable, "user", "pencil", client_nonce);
        assert_eq!(message, first);
        let (message, client) = client.server_first(server_first.as_bytes()).unwrap();
        assert_eq!(message, last);
        client.server_final(server_last.as_bytes()).unwrap();
    }
}

/// One exchange of our client with our server; `known` is the password the server knows.
fn exchange(
    start: Start,
    hash: Hash,
    binding: &Binding,
    (user, password): (&str, &str),
    known: Option<&str>,
) -> Result<String, Fault> {
    let (message, client) = scram_client::start(hash, binding, user, password, "clientnonce");
    let need = start.client_first(message.as_bytes())?;
    let known = known.map(|it| credentials(hash, it, b"0123456789abcdef"));
    let (message, wait) = need.answer(known, &DECOY, "servernonce");
    let (message, client) = client.server_first(message.as_bytes()).expect("server-first");
    let success = wait.client_final(message.as_bytes())?;
    client.server_final(success.server_final.as_bytes()).expect("server-final");
    Ok(success.username)
}

#[test]
fn all_six_mechanisms_meet_their_client() {
    for hash in Hash::ALL {
        let user = ("Juliet=,", "pass\u{e9} word");
        let run = |start, binding: &Binding, known| exchange(start, hash, binding, user, known);
        let right = Some("passe\u{301} word");
        let juliet = Ok("juliet=,".to_owned());
        assert_eq!(run(start(hash, false), &Binding::Unable, right), juliet);
        assert_eq!(run(start(hash, false), &Binding::NotOffered, right), juliet);
        for kind in BindingKind::ALL {
            let octets = bindings().get(kind).unwrap().to_vec();
            assert_eq!(run(start(hash, true), &Binding::Bound(kind, octets), right), juliet);
            let other = Binding::Bound(kind, b"of an interceptor".to_vec());
            assert_eq!(run(start(hash, true), &other, right), Err(Fault::BindingWrong));
            assert_eq!(run(start(hash, false), &other, right), Err(Fault::BindingUnsupported));
        }
        assert_eq!(run(start(hash, true), &Binding::NotOffered, right), Err(Fault::Downgraded));
        assert_eq!(run(start(hash, true), &Binding::Unable, right), Err(Fault::BindingUnsupported));
        let stripped = Start::new(hash, false, true, "example.com", bindings());
        assert_eq!(run(stripped, &Binding::NotOffered, right), Err(Fault::Downgraded));
        let wrong = run(start(hash, false), &Binding::Unable, Some("other"));
        assert_eq!(wrong, Err(Fault::ProofWrong));
        assert_eq!(run(start(hash, false), &Binding::Unable, None), wrong);
    }
}

#[test]
fn an_unknown_user_looks_like_any_other() {
    let first = |user: &str, secret| {
        let message = format!("n,,n={user},r=abc");
        let need = start(Hash::Sha256, false).client_first(message.as_bytes()).unwrap();
        need.answer(None, &Decoy { secret, iterations: 10_000 }, "def").0
    };
    let once = first("nobody", b"a");
    assert_eq!(once, first("NoBody", b"a"));
    assert_ne!(once, first("noone", b"a"));
    assert_ne!(once, first("nobody", b"b"));
    let salt = once.strip_prefix("r=abcdef,s=").and_then(|it| it.strip_suffix(",i=10000")).unwrap();
    assert_eq!(STANDARD.decode(salt).unwrap().len(), 16);
}

#[test]
fn bad_first_messages() {
    for (message, why) in [
        ("", Fault::Malformed),
        ("n", Fault::Malformed),
        ("n,,", Fault::Malformed),
        ("n,,n=user", Fault::Malformed),
        ("n,,r=abc,n=user", Fault::Malformed),
        ("n,,n=,r=abc", Fault::Malformed),
        ("n,,n=user,r=", Fault::Malformed),
        ("n,,n=user,r=a\u{e9}", Fault::Malformed),
        ("n,,n=us=er,r=abc", Fault::Malformed),
        ("n,,n=us=2cer,r=abc", Fault::Malformed),
        ("n,,n=user,r=abc,", Fault::Malformed),
        ("n,,n=user,r=abc,m=x", Fault::Malformed),
        ("n,x,n=user,r=abc", Fault::Malformed),
        ("x,,n=user,r=abc", Fault::Malformed),
        ("n,,m=x,n=user,r=abc", Fault::ExtensionMandatory),
        ("n,,n=us er,r=abc", Fault::UsernameInvalid),
        ("n,a=romeo@example.com,n=user,r=abc", Fault::AuthzidWrong),
        ("n,a=user,n=user,r=abc", Fault::AuthzidWrong),
        ("p=tls-unique,,n=user,r=abc", Fault::BindingUnsupported),
    ] {
        let found = start(Hash::Sha1, false).client_first(message.as_bytes()).err();
        assert_eq!(found, Some(why), "{message}");
    }
    for message in ["n,a=User@example.COM,n=user,r=abc", "n,,n=user,r=abc,x=y"] {
        assert!(start(Hash::Sha1, false).client_first(message.as_bytes()).is_ok());
    }
    assert_eq!(
        start(Hash::Sha1, false).client_first(b"n,,n=\xff,r=a").err(),
        Some(Fault::Malformed)
    );
}

#[test]
fn bad_final_messages() {
    for (message, why) in [
        ("", Fault::Malformed),
        ("c=biws,r=abcdef", Fault::Malformed),
        ("r=abcdef,c=biws,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", Fault::Malformed),
        ("c=biws,r=abcdef,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts", Fault::Malformed),
        ("c=biws,r=abcdef,p=YQ==", Fault::Malformed),
        ("c=biw,r=abcdef,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", Fault::Malformed),
        ("c=eSws,r=abcdef,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", Fault::BindingWrong),
        ("c=biws,r=abcdeg,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", Fault::NonceWrong),
        ("c=biws,r=abc,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", Fault::NonceWrong),
        ("c=biws,r=abcdef,m=x,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", Fault::Malformed),
        ("c=biws,r=abcdef,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", Fault::ProofWrong),
    ] {
        let need = start(Hash::Sha1, false).client_first(b"n,,n=user,r=abc").unwrap();
        let known = credentials(Hash::Sha1, "pencil", b"salt");
        let (_, wait) = need.answer(Some(known), &DECOY, "def");
        assert_eq!(wait.client_final(message.as_bytes()).err(), Some(why), "{message}");
    }
}

#[test]
fn a_client_refuses_a_false_server() {
    use scram_client::Fault as ClientFault;
    let first = |message: &str| {
        let (_, wait) = scram_client::start(Hash::Sha1, &Binding::Unable, "user", "pencil", "abc");
        wait.server_first(message.as_bytes())
    };
    for (message, why) in [
        ("r=xyz,s=QSXCR+Q6sek8bf92,i=4096", ClientFault::NonceWrong),
        ("r=abc,s=QSXCR+Q6sek8bf92,i=4096", ClientFault::NonceWrong),
        ("r=abcd,s=QSXCR+Q6sek8bf92,i=1", ClientFault::IterationsOutOfRange),
        ("r=abcd,s=QSXCR+Q6sek8bf92,i=4000000000", ClientFault::IterationsOutOfRange),
        ("r=abcd,s=?,i=4096", ClientFault::Malformed),
        ("m=x,r=abcd,s=QSXCR+Q6sek8bf92,i=4096", ClientFault::Malformed),
    ] {
        assert_eq!(first(message).err(), Some(why), "{message}");
    }
    let right = "r=abcd,s=QSXCR+Q6sek8bf92,i=4096";
    let (_, wait) = first(right).unwrap();
    assert_eq!(wait.server_final(b"v=AAAA"), Err(ClientFault::SignatureWrong));
    let (_, wait) = first(right).unwrap();
    assert_eq!(wait.server_final(b"e=other-error"), Err(ClientFault::Malformed));
}

#[test]
fn empty_passwords_have_no_keys() {
    assert!(derive(Hash::Sha256, "", b"salt", 4_096).is_none());
}
