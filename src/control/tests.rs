//! The control thread with two scripted shards; HTTP and the control socket really spoken.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Ending;
use super::lanes::{FromShard, NetLanes, ToShard};
use super::testing::World;
use crate::address::Address;
use crate::admin::client::{Format, call, exit, import, parse_import, render};
use crate::admin::protocol::{Request, Response, Secret};
use crate::dns;
use crate::net;
use crate::shard::Notice;
use crate::shard::kernel::{Answer, Engine, Event, Kernel, Next, Order, Question, ShardId, Ticket};
use crate::time::{Moment, Now};
use crate::tls;
use crate::xmpp::sasl::scram::Hash;

fn secret(text: &str) -> Secret {
    Secret(text.into())
}

fn add(world: &World, address: &str) -> Response {
    let request = Request::UserAdd { address: address.into(), password: secret("pencil") };
    call(&world.socket, &request).unwrap()
}

fn reason(response: &Response) -> &str {
    response.error.as_ref().map_or("", |it| it.reason.as_str())
}

fn stop(world: World) -> Ending {
    assert!(call(&world.socket, &Request::Stop).unwrap().ok);
    world.end()
}

fn user(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// One HTTP exchange: status line and body.
fn http(world: &World, method: &str, path: &str) -> (String, String) {
    let mut conn = TcpStream::connect(world.admin).unwrap();
    write!(conn, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    conn.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[test]
fn accounts_made_over_the_socket_log_in() {
    let world = World::start(&[], false);
    let made = add(&world, "Juliet@EXAMPLE.com");
    assert_eq!(made.result, json!({"address": "juliet@example.com"}));
    assert_eq!(reason(&add(&world, "juliet@example.com")), "exists");
    assert_eq!(reason(&add(&world, "juliet@elsewhere.example")), "domain");
    assert_eq!(reason(&add(&world, "example.com")), "malformed");
    assert_eq!(reason(&add(&world, "juliet@example.com/balcony")), "malformed");
    let empty = Request::UserAdd { address: "x@example.com".into(), password: secret("") };
    assert_eq!(reason(&call(&world.socket, &empty).unwrap()), "password");

    let juliet = user("juliet@example.com/balcony");
    for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
        let question = Question::Credentials { ticket: Ticket(7), user: juliet.clone(), hash };
        let answer = world.ask(1, question);
        assert!(
            matches!(
                answer,
                ToShard::Answered(Answer::Credentials {
                    ticket: Ticket(7),
                    credentials: Ok(Some(_))
                })
            ),
            "{answer:?}"
        );
    }
    let nobody = user("nobody@example.com");
    for (who, password, expected) in
        [(&juliet, "pencil", true), (&juliet, "pen", false), (&nobody, "pencil", false)]
    {
        let question =
            Question::Password { ticket: Ticket(8), user: who.clone(), password: password.into() };
        let ToShard::Answered(Answer::Password { good, .. }) = world.ask(0, question) else {
            panic!("another answer")
        };
        assert_eq!(good, Ok(expected), "{who} {password}");
    }
    assert_eq!(stop(world), Ending::Orderly);
}

#[test]
fn who_loses_the_password_loses_the_streams() {
    let world = World::start(&[], false);
    assert!(add(&world, "romeo@example.com").ok);
    let passwd =
        Request::UserPasswd { address: "romeo@example.com".into(), password: secret("new") };
    let delete = Request::UserDelete { address: "romeo@example.com".into() };
    for request in [passwd, delete.clone()] {
        assert!(call(&world.socket, &request).unwrap().ok);
        let mut kicked = [false; 2];
        for _ in 0..2 {
            let (shard, order) = world.seen.recv_timeout(Duration::from_secs(30)).unwrap();
            let ToShard::Ordered(Order::Kick { user }) = order else { panic!("{order:?}") };
            assert_eq!(user.bare(), "romeo@example.com");
            kicked[usize::from(shard.0)] = true;
        }
        assert_eq!(kicked, [true; 2]);
    }
    assert_eq!(reason(&call(&world.socket, &delete).unwrap()), "absent");
    let question = Question::Credentials {
        ticket: Ticket(1),
        user: user("romeo@example.com"),
        hash: Hash::Sha1,
    };
    let answer = world.ask(0, question);
    assert!(
        matches!(answer, ToShard::Answered(Answer::Credentials { credentials: Ok(None), .. })),
        "{answer:?}"
    );
    stop(world);
}

#[test]
fn many_users_are_imported_and_listed_in_pages() {
    let world = World::start(&[], false);
    let text: String = (0..70).map(|n| format!("u{n:02}@example.com pw{n}\n")).collect();
    let users = parse_import(&format!("{text}x@elsewhere.example pw\nu00@example.com pw\n"));
    let mut steps = Vec::new();
    let response = import(&world.socket, &users.unwrap(), |done| steps.push(done)).unwrap();
    assert_eq!(steps, [32, 64, 72]);
    assert_eq!(response.result["added"], 70);
    assert_eq!(response.result["existed"], 1);
    assert_eq!(response.result["refused"][0]["address"], "x@elsewhere.example");
    assert_eq!(exit(&response).code(), 1);

    let list = |after: &str| Request::UserList { after: after.into(), limit: 50 };
    let first = call(&world.socket, &list("")).unwrap();
    assert_eq!(first.result["rows"].as_array().unwrap().len(), 50);
    let next = first.result["next"].as_str().unwrap();
    let second = call(&world.socket, &list(next)).unwrap();
    assert_eq!(second.result["rows"].as_array().unwrap().len(), 20);
    assert_eq!(second.result["next"], serde_json::Value::Null);
    let shown = render(&list(""), &first, Format::Text);
    assert!(shown.starts_with("ADDRESS") && shown.contains("more: --after"), "{shown}");
    stop(world);
}

#[test]
fn status_domains_and_streams_are_told() {
    let world = World::start(&[], false);
    let status = call(&world.socket, &Request::Status).unwrap();
    assert_eq!(status.result["shards_silent"], 0);
    assert_eq!(status.result["phase"], "ready");
    assert_eq!(status.result["rows"].as_array().unwrap().len(), 2);
    let domains =
        render(&Request::Domains, &call(&world.socket, &Request::Domains).unwrap(), Format::Text);
    for expected in ["example.com", "*.bad.example", "(others)"] {
        assert!(domains.contains(expected), "{domains}");
    }
    let streams = call(&world.socket, &Request::Streams { limit: 4 }).unwrap();
    assert_eq!(streams.result["total"], 6);
    assert_eq!(streams.result["rows"].as_array().unwrap().len(), 4);
    let json = render(&Request::Status, &status, Format::Json);
    assert!(json.contains("\"schema\": 1"));
    stop(world);
}

#[test]
fn the_socket_is_for_its_owner_and_bears_nonsense() {
    let world = World::start(&[], false);
    let mode = std::fs::metadata(&world.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut conn = std::os::unix::net::UnixStream::connect(&world.socket).unwrap();
    let mut answers = BufReader::new(conn.try_clone().unwrap()).lines();
    for nonsense in ["{}", "[", "{\"op\":\"fly\"}", "\u{0}", "{\"op\":\"status\""] {
        writeln!(conn, "{nonsense}").unwrap();
        let answer: Response = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(reason(&answer), "malformed", "{nonsense}");
    }
    writeln!(conn, "{{\"op\":\"status\"}}").unwrap();
    assert!(answers.next().unwrap().unwrap().contains("\"ok\":true"));
    // Too long a line is answered, and the connection ends.
    drop(conn.write_all(&vec![b'x'; crate::limits::CTL_LINE_BYTES_MAX + 1]));
    assert!(answers.next().unwrap().unwrap().contains("too_many"));
    let socket = world.socket.clone();
    stop(world);
    assert!(!socket.exists());
}

#[test]
fn the_admin_port_shows_health_readiness_and_metrics() {
    let world = World::start(&[], false);
    // A status has every shard's answer behind it, so the node is ready.
    assert_eq!(call(&world.socket, &Request::Status).unwrap().result["phase"], "ready");
    let (status, body) = http(&world, "GET", "/health");
    assert!(status.contains("200") && body.contains("\"ok\""), "{status} {body}");
    let (status, body) = http(&world, "GET", "/ready");
    assert!(status.contains("200") && body.contains("\"ready\""), "{status} {body}");
    let (status, body) = http(&world, "GET", "/metrics");
    assert!(status.contains("200"), "{status}");
    for line in [
        "# TYPE tandem_messages_offered counter",
        "tandem_messages_offered_total{kind=\"chat\"} 21",
        "# TYPE tandem_connections gauge",
        "tandem_connections{state=\"bound\"} 4",
        "tandem_config_version 1",
        "tandem_config_reloads_total{result=\"ok\"} 0",
        "tandem_build_info{version=",
        "tandem_shard_heartbeat_age_seconds{shard=\"1\"}",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "# EOF",
    ] {
        assert!(body.contains(line), "{line} is not in\n{body}");
    }
    assert!(http(&world, "POST", "/metrics").0.contains("405"));
    assert!(http(&world, "DELETE", "/health").0.contains("405"));
    for path in ["/", "/health/", "/metrics/../health", "/admin", "/%68ealth"] {
        assert!(http(&world, "GET", path).0.contains("404"), "{path}");
    }
    stop(world);
}

#[test]
fn a_shard_that_takes_nothing_holds_nobody_up() {
    let world = World::start(&[1], false);
    let asked = Instant::now();
    let (status, body) = http(&world, "GET", "/metrics");
    assert!(status.contains("200"));
    assert!(body.contains("tandem_messages_offered_total{kind=\"chat\"} 10"), "{body}");
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert!(http(&world, "GET", "/ready").0.contains("503"));
    // More than its lane takes is kept for it, and the other one is answered meanwhile.
    let juliet = user("juliet@example.com");
    for shard in [1, 1, 1, 1, 1, 1] {
        let question =
            Question::Credentials { ticket: Ticket(1), user: juliet.clone(), hash: Hash::Sha1 };
        drop(world.up.send(FromShard::Asked(ShardId(shard), question)));
    }
    let question = Question::Credentials { ticket: Ticket(2), user: juliet, hash: Hash::Sha1 };
    assert!(matches!(world.ask(0, question), ToShard::Answered(_)));
    // Told to stop, it does not end; told again, control does.
    assert!(call(&world.socket, &Request::Stop).unwrap().ok);
    let (status, _) = http(&world, "GET", "/ready");
    assert!(status.contains("503"));
    while !http(&world, "GET", "/health").1.contains("ended") {}
    assert_eq!(stop(world), Ending::Cut { shards: 1 });
}

#[test]
fn a_reload_is_all_or_nothing() {
    let world = World::start(&[], false);
    world.reloads.send(Err("t.toml:3:1: no such key".into())).unwrap();
    let refused = call(&world.socket, &Request::Reload).unwrap();
    assert_eq!((reason(&refused), exit(&refused).code()), ("config", 78));
    assert!(refused.error.unwrap().text.contains("t.toml:3:1"));
    let done = call(&world.socket, &Request::Reload).unwrap();
    assert_eq!(done.result, json!({"config_version": 2, "changes": ["policy.default"]}));
    for _ in 0..2 {
        let (_, order) = world.seen.recv_timeout(Duration::from_secs(30)).unwrap();
        let ToShard::Ordered(Order::Settings(settings)) = order else { panic!("{order:?}") };
        assert_eq!((settings.version, settings.shards), (2, 2));
    }
    stop(world);
}

#[test]
fn lookups_and_verdicts_come_back() {
    let world = World::start(&[], false);
    let question = Question::Resolve { ticket: Ticket(3), domain: "partner.example".into() };
    let answer = world.ask(0, question);
    assert!(
        matches!(
            answer,
            ToShard::Answered(Answer::Resolved {
                ticket: Ticket(3),
                direct: dns::Answer::Failed,
                starttls: dns::Answer::Failed
            })
        ),
        "{answer:?}"
    );
    let question = Question::Addresses { ticket: Ticket(4), host: "192.0.2.1".into() };
    let ToShard::Answered(Answer::Addresses { addresses, .. }) = world.ask(1, question) else {
        panic!("another answer")
    };
    assert_eq!(addresses, Some(vec!["192.0.2.1".parse().unwrap()]));
    let question =
        Question::Judge { ticket: Ticket(5), chain: Vec::new(), usage: tls::Usage::AsClient };
    let ToShard::Answered(Answer::Judged { verdict, .. }) = world.ask(1, question) else {
        panic!("another answer")
    };
    assert_eq!(verdict.chain, Err(tls::ChainFault::NoCertificate));
    let notice = Notice { event: "peer_setup_failed", fields: vec![("peer", "x".into())] };
    for _ in 0..3 {
        drop(world.up.send(FromShard::Asked(ShardId(0), Question::Tell(notice.clone()))));
    }
    // In order behind them.
    assert!(call(&world.socket, &Request::Status).unwrap().ok);
    assert!(http(&world, "GET", "/metrics").1.contains("tandem_notices_total 3"));
    stop(world);
}

#[test]
fn a_second_node_does_not_take_the_socket() {
    let world = World::start(&[], false);
    let socket = super::Socket { path: world.socket.clone(), mode: 0o600 };
    let Err(error) = crate::admin::ctl::bind(&socket) else { panic!("took it") };
    assert!(error.to_string().contains("another tandem serves it"), "{error}");
    let absent = super::Socket { path: world.directory.path().join("no/x.sock"), mode: 0o600 };
    let Err(error) = crate::admin::ctl::bind(&absent) else { panic!("made it") };
    assert!(error.to_string().contains("does its directory exist"), "{error}");
    stop(world);
}

/// Reports and stops when told, and asks once for an account: the least a shard does.
struct Least {
    id: ShardId,
    asked: bool,
    answered: std::sync::mpsc::Sender<ShardId>,
}

impl Engine for Least {
    fn step<K: Kernel>(&mut self, _now: Now, kernel: &mut K) -> Next {
        let mut done = false;
        let mut reports = Vec::new();
        while let Some(event) = kernel.next() {
            match event {
                Event::Ordered(Order::Report { ticket, .. }) => reports.push(ticket),
                Event::Ordered(Order::Stop) => done = true,
                Event::Answered(Answer::Credentials { credentials: Ok(None), .. }) => {
                    self.answered.send(self.id).unwrap();
                }
                _ => {}
            }
        }
        for ticket in reports {
            let report = Box::default();
            kernel.ask(Question::Report { ticket, report }).unwrap();
        }
        if !self.asked {
            self.asked = true;
            let user = user("romeo@example.com");
            kernel
                .ask(Question::Credentials { ticket: Ticket(1), user, hash: Hash::Sha1 })
                .unwrap();
        }
        Next { deadline: Moment::NEVER, done }
    }
}

#[test]
fn the_lanes_of_a_real_node_carry_questions_orders_and_the_end() {
    let plan = net::Plan { shards: 2, interface: net::Interface::Epoll, ..net::Plan::default() };
    let (answered, answers) = std::sync::mpsc::channel();
    let running =
        net::run(&plan, move |id, _| Least { id, asked: false, answered: answered.clone() })
            .unwrap();
    let (handle, questions, joiner) = running.split();
    let lanes = NetLanes::new(handle, questions, joiner).unwrap();
    let world = World::start_on(Box::new(lanes));
    let mut asked = [0, 1].map(|_| answers.recv_timeout(Duration::from_secs(30)).unwrap());
    asked.sort();
    assert_eq!(asked, [ShardId(0), ShardId(1)]);
    assert_eq!(call(&world.socket, &Request::Status).unwrap().result["shards_silent"], 0);
    assert_eq!(stop(world), Ending::Orderly);
}

/// Not a test by itself: the process that [`signals_reload_and_stop`] signals.
#[test]
fn child_that_waits_for_signals() {
    if std::env::var_os("TANDEM_SIGNAL_CHILD").is_none() {
        return;
    }
    let world = World::start(&[], true);
    println!("READY {}", std::process::id());
    let (_, order) = world.seen.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(matches!(order, ToShard::Ordered(Order::Settings(_))));
    println!("RELOADED {}", std::process::id());
    println!("ENDED {:?}", world.end());
}

#[test]
fn signals_reload_and_stop() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "control::tests::child_that_waits_for_signals", "--nocapture"])
        .env("TANDEM_SIGNAL_CHILD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let kill = |signal: &str, id: u32| {
        let done = Command::new("kill").args([signal, &id.to_string()]).status().unwrap();
        assert!(done.success());
    };
    let mut ended = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("READY ") {
            kill("-HUP", child.id());
        } else if line.contains("RELOADED ") {
            kill("-TERM", child.id());
        } else if line.contains("ENDED ") {
            ended = line;
        }
    }
    assert!(child.wait().unwrap().success());
    assert!(ended.ends_with("ENDED Orderly"), "{ended}");
}
