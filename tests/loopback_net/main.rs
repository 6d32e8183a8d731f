//! The pump over real sockets on the loopback, each test over the ring and over its epoll twin.
//!
//! The engines here are stand-ins of a few lines: one echoes and may move a connection first, one
//! connects, one posts. They obey the rules of `Kernel` and panic where the pump breaks its own.

#![expect(clippy::disallowed_methods, reason = "a test of time waits for it")]

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tandem::net::{Interface, Plan, Running, run};
use tandem::shard::kernel::{Engine, Event, Gone, Kernel, Next, Order, Read, ShardId, Ticket};
use tandem::time::{Moment, Now};

mod stage;

use stage::*;

#[test]
fn echo_of_random_sizes_is_exact() {
    both(|interface| {
        let node = echo(&plan(interface, 1), Read::Stream);
        let mut stream = node.connect();
        let mut dice = Dice(7);
        let mut at = 0;
        for _ in 0..300 {
            let sent = pattern(at, 1 + dice.roll(60_000));
            at += sent.len();
            exchange(&mut stream, &sent);
        }
        drop(stream);
        until("the end is seen", || value(&node.seen.gone) == 1);
        node.stop();
    });
}

#[test]
fn what_is_sent_before_a_half_close_comes_back() {
    both(|interface| {
        let node = echo(&plan(interface, 1), Read::Stream);
        let mut stream = node.connect();
        stream.write_all(b"last words").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"last words");
        assert_eq!(value(&node.stop().gone), 1);
    });
}

#[test]
fn two_thousand_connections() {
    both(|interface| {
        let node = echo(&plan(interface, 2), Read::Stream);
        let mut streams: Vec<_> = (0..2_000).map(|_| node.connect()).collect();
        for round in 0..3 {
            for (index, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&pattern(index + round, 100 + index % 400)).unwrap();
            }
            for (index, stream) in streams.iter_mut().enumerate() {
                let sent = pattern(index + round, 100 + index % 400);
                let mut back = vec![0; sent.len()];
                stream.read_exact(&mut back).unwrap();
                assert!(back == sent);
            }
        }
        drop(streams);
        until("all ends are seen", || value(&node.seen.gone) == 2_000);
        assert_eq!(value(&node.stop().accepted), 2_000);
    });
}

#[test]
fn few_buffers_lose_nothing() {
    let small = Plan { receive_buffers: 16, receive_buffer_bytes: 256, ..plan(Interface::Ring, 1) };
    let node = echo(&small, Read::Stream);
    let mut streams: Vec<_> = (0..50).map(|_| node.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&pattern(0, 40_000)).unwrap();
    }
    for stream in &mut streams {
        let mut back = vec![0; 40_000];
        stream.read_exact(&mut back).unwrap();
        assert!(back == pattern(0, 40_000));
    }
    drop(streams);
    node.stop();
}

fn talk_over_a_move(mut stream: TcpStream, number: usize) {
    let mut all = vec![b'M'];
    all.extend(pattern(number, 200_000));
    let mut writer = stream.try_clone().expect("a second handle");
    let sent = all.clone();
    let writing = thread::spawn(move || {
        for part in sent.chunks(4_001) {
            writer.write_all(part).expect("sent");
        }
    });
    let mut back = vec![0; all.len()];
    stream.read_exact(&mut back).expect("an echo");
    assert!(back == all);
    writing.join().expect("a writer");
}

#[test]
fn a_move_under_pipelined_data_keeps_order_and_loses_nothing() {
    both(|interface| {
        let node = echo(&plan(interface, 2), Read::Once);
        thread::scope(|scope| {
            for number in 0..100 {
                let stream = node.connect();
                scope.spawn(move || talk_over_a_move(stream, number));
            }
        });
        until("all ends are seen", || value(&node.seen.gone) == 100);
        let seen = node.stop();
        assert_eq!(value(&seen.arrived), 100);
        assert_eq!(value(&seen.posted), 100);
    });
}

#[test]
fn a_slow_reader_pauses_its_own_reading() {
    both(|interface| {
        let node = echo(&plan(interface, 1), Read::Stream);
        let mut reader = node.connect();
        let mut writer = reader.try_clone().unwrap();
        let total = 320 * 65_536;
        let writing = thread::spawn(move || {
            for at in (0..total).step_by(65_536) {
                writer.write_all(&pattern(at, 65_536)).expect("sent");
            }
        });
        until("a pause", || value(&node.seen.pauses) > 0);
        let mut part = vec![0; 65_536];
        for at in (0..total).step_by(65_536) {
            reader.read_exact(&mut part).unwrap();
            assert!(part == pattern(at, part.len()));
        }
        writing.join().unwrap();
        drop(reader);
        node.stop();
    });
}

#[test]
fn an_orderly_close_ends_after_the_last_byte_and_an_abort_resets() {
    both(|interface| {
        let node = echo(&plan(interface, 1), Read::Stream);
        let mut stream = node.connect();
        stream.write_all(b"good bye Q").unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"good bye Q");
        assert_eq!(value(&node.seen.gone), 0, "the far end has not closed yet");
        drop(stream);
        until("gone", || value(&node.seen.gone) == 1);

        let mut stream = node.connect();
        stream.write_all(b"A").unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        until("gone", || value(&node.seen.gone) == 2);
        node.stop();
    });
}

#[test]
fn a_far_end_that_never_closes_is_dropped_after_the_linger() {
    both(|interface| {
        let node = echo(&plan(interface, 1), Read::Stream);
        let mut stream = node.connect();
        stream.write_all(b"Q").unwrap();
        let start = Instant::now();
        until("gone", || value(&node.seen.gone) == 1);
        assert!(start.elapsed() >= Duration::from_millis(4_900));
        drop(stream);
        node.stop();
    });
}

#[test]
fn a_reset_under_a_send_is_told_once() {
    both(|interface| {
        let node = echo(&plan(interface, 1), Read::Stream);
        for _ in 0..50 {
            let mut stream = node.connect();
            // Unread bytes at the close make it a reset, while the echo is being sent.
            stream.write_all(&pattern(0, 300_000)).unwrap();
            stream.read_exact(&mut [0; 10]).unwrap();
        }
        until("all gone", || value(&node.seen.gone) == 50);
        node.stop();
    });
}

#[test]
fn an_address_in_use_is_told_before_anything_runs() {
    both(|interface| {
        let node = echo(&plan(interface, 1), Read::Stream);
        let taken = Plan { listeners: vec![node.address], ..plan(interface, 1) };
        let error = run(&taken, |_, _| -> Echo { panic!("no engine may be made") }).unwrap_err();
        assert!(error.to_string().contains(&node.address.to_string()), "{error}");
        node.stop();
    });
}

#[test]
fn both_families_listen_side_by_side() {
    both(|interface| {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        // The same port twice needs v6only.
        let listeners = vec![
            format!("0.0.0.0:{port}").parse().unwrap(),
            format!("[::]:{port}").parse().unwrap(),
        ];
        let node = echo(&Plan { listeners, ..plan(interface, 2) }, Read::Stream);
        for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            exchange(&mut TcpStream::connect(address).unwrap(), b"x");
        }
        node.stop();
    });
}

#[test]
fn datagrams_come_whole_and_go_back_where_they_came_from() {
    both(|interface| {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let plan = Plan { listeners: vec![any, any], datagrams: vec![1], ..plan(interface, 2) };
        let node = echo(&plan, Read::Stream);
        let address = node.running.addresses[1];
        let asker = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        let mut buffer = vec![0; 70_000];
        // Each length is a datagram of its own, up to the longest that there is.
        let sockets: Vec<UdpSocket> = (0..20).map(|_| asker()).collect();
        for length in [1, 100, 1_500, 9_000, 65_507] {
            let sent = pattern(length, length);
            for socket in &sockets {
                socket.send(&sent).unwrap();
                let got = receive(socket, &mut buffer);
                assert!(buffer[..got] == sent[..], "{length}");
            }
        }
        // Many at once: more than a turn takes, fewer than a socket holds.
        for number in 0..150_u8 {
            sockets[0].send(&[number]).unwrap();
        }
        for number in 0..150_u8 {
            assert_eq!(receive(&sockets[0], &mut buffer), 1);
            assert_eq!(buffer[0], number);
        }
        // A listener beside it still takes connections.
        exchange(&mut TcpStream::connect(node.address).unwrap(), b"x");
        node.stop();
    });
}

/// One datagram. A host that is frozen and thawed interrupts a receive with a time-out.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> usize {
    loop {
        match socket.recv(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => panic!("{e}"),
            Ok(length) => return length,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Connected(u64),
    Failed(u64, &'static str),
    Gone(Gone),
    Answer(Vec<u8>),
}

/// Connects to all targets, says hello to each, and tells what it hears.
struct Caller {
    targets: Vec<SocketAddr>,
    left: usize,
    tell: Sender<Heard>,
    started: bool,
}

impl Engine for Caller {
    fn step<K: Kernel>(&mut self, _: Now, kernel: &mut K) -> Next {
        if !std::mem::replace(&mut self.started, true) {
            for (number, &target) in self.targets.iter().enumerate() {
                kernel.connect(Ticket(number as u64), target);
            }
        }
        while let Some(event) = kernel.next() {
            let heard = match event {
                Event::Connected { conn, ticket, remote } => {
                    assert_eq!(remote, self.targets[ticket.0 as usize]);
                    kernel.send(conn, b"hello".to_vec());
                    kernel.read(conn, Read::Stream);
                    Heard::Connected(ticket.0)
                }
                Event::ConnectFailed { ticket, reason } => {
                    self.left -= 1;
                    Heard::Failed(ticket.0, reason)
                }
                Event::Gone { why, unacknowledged, .. } => {
                    assert_eq!(unacknowledged, 0);
                    self.left -= 1;
                    Heard::Gone(why)
                }
                Event::Received { bytes, .. } => Heard::Answer(bytes.to_vec()),
                Event::Sent { buffer, .. } => {
                    assert_eq!(buffer, b"hello");
                    continue;
                }
                other => panic!("nobody asked for {other:?}"),
            };
            self.tell.send(heard).expect("a test that listens");
        }
        Next { deadline: Moment::NEVER, done: self.left == 0 }
    }
}

fn call(interface: Interface, targets: Vec<SocketAddr>) -> (Running, Receiver<Heard>) {
    let (tell, heard) = channel();
    let plan = Plan { interface, ..Plan::default() };
    let left = targets.len();
    let running = run(&plan, move |_, _| {
        let (targets, tell) = (targets.clone(), tell.clone());
        Caller { targets, left, tell, started: false }
    });
    (running.expect("a node"), heard)
}

#[test]
fn connects_stand_or_fail_with_a_reason() {
    both(|interface| {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = closed.local_addr().unwrap();
        drop(closed);
        let server = TcpListener::bind("[::1]:0").unwrap();
        let (running, heard) = call(interface, vec![refused, server.local_addr().unwrap()]);
        let (mut stream, _) = server.accept().unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&hello).unwrap();
        drop(stream);
        running.join();
        let mut heard: Vec<_> = heard.try_iter().collect();
        heard.sort_by_key(|heard| format!("{heard:?}"));
        let expected = [
            Heard::Answer(b"hello".to_vec()),
            Heard::Connected(1),
            Heard::Failed(0, "connection refused"),
            Heard::Gone(Gone::Closed),
        ];
        assert_eq!(heard, expected);
    });
}

#[test]
fn a_connect_that_nobody_answers_times_out() {
    // A listener whose queue is full drops the handshakes of others.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let attempt = |_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
    let held: Vec<_> = (0..10_000).map_while(attempt).collect();
    both(|interface| {
        let start = Instant::now();
        let (running, heard) = call(interface, vec![address]);
        running.join();
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [Heard::Failed(0, "timed out")]);
        assert!(start.elapsed() > Duration::from_secs(4));
    });
    drop(held);
}

/// Past the harness, which writes to the same line.
fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("somebody listens");
}

/// The server half of the test below, in a process with few descriptors. Says on standard output
/// where it listens and when it pauses; stops when standard input ends.
fn serve_with_few_descriptors(interface: Interface) {
    let node = echo(&plan(interface, 1), Read::Stream);
    say(&format!("port {}", node.address.port()));
    until("a pause", || value(&node.seen.accept_pauses) > 0);
    say("paused");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("an end");
    node.stop();
}

#[test]
fn at_the_descriptor_limit_accepting_pauses_and_goes_on() {
    let name = "at_the_descriptor_limit_accepting_pauses_and_goes_on";
    match std::env::var("TANDEM_TEST_CHILD").as_deref() {
        Ok("Ring") => return serve_with_few_descriptors(Interface::Ring),
        Ok("Epoll") => return serve_with_few_descriptors(Interface::Epoll),
        _ => {}
    }
    both(|interface| {
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -n 200; exec \"$0\" --exact {name} --nocapture")])
            .arg(std::env::current_exe().unwrap())
            .env("TANDEM_TEST_CHILD", format!("{interface:?}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let port = lines.find_map(|line| line.strip_prefix("port ")?.parse::<u16>().ok()).unwrap();
        let connect = || {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        };
        let mut streams: Vec<_> = (0..300).map(|_| connect()).collect();
        assert!(lines.any(|line| line == "paused"));
        // Those who are in are served meanwhile; the last is let in when others have left.
        exchange(&mut streams[0], b"still here");
        let mut last = streams.pop().unwrap();
        drop(streams);
        exchange(&mut last, b"let in at last");
        drop(last);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    });
}

/// Throws back what the other shard posts.
struct PingPong {
    shard: ShardId,
    left: u64,
    wakes: Arc<AtomicU64>,
}

impl Engine for PingPong {
    fn step<K: Kernel>(&mut self, _: Now, kernel: &mut K) -> Next {
        let far = ShardId(1 - self.shard.0);
        let mut posts = 0;
        while let Some(event) = kernel.next() {
            match event {
                Event::Posted { from, record } => {
                    assert_eq!(from, far);
                    assert_eq!(record.len(), 300);
                    self.left -= 1;
                    posts += 1;
                }
                Event::Ordered(_) => posts += 1,
                other => panic!("nobody asked for {other:?}"),
            }
        }
        for _ in 0..posts {
            kernel.post(far, &[1; 300]).expect("room in the mesh");
        }
        self.wakes.store(kernel.net_counters().wakes, Ordering::Relaxed);
        Next { deadline: Moment::NEVER, done: self.left == 0 }
    }
}

#[test]
fn no_wake_up_is_lost() {
    both(|interface| {
        let wakes = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&wakes);
        let plan = Plan { shards: 2, interface, ..Plan::default() };
        let running = run(&plan, move |shard, _| PingPong {
            shard,
            left: 20_000,
            wakes: Arc::clone(&shared),
        })
        .unwrap();
        // One ball in the air: each post meets a shard that sleeps or is about to.
        let serve = Order::Report { ticket: Ticket(0), streams: false };
        running.control.order(ShardId(0), serve).unwrap();
        running.join();
        assert!(value(&wakes) > 0);
    });
}
