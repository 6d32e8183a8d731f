//! A kernel that does nothing but write down what it is asked.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::world::{Link, UDP};
use crate::shard::Parcel;
use crate::shard::kernel::*;
use crate::shard::settings::ListenerId;

pub(super) enum Heard {
    Event(Event<'static>),
    Received(ConnId, Vec<u8>),
    Datagram(SocketAddr, Vec<u8>),
    Posted(ShardId, Vec<u8>),
    Arrived(Link, Box<Parcel>),
}

pub(super) enum Done {
    Send(ConnId, Vec<u8>),
    Close(ConnId),
    Connect(Ticket, SocketAddr),
    Post(ShardId, Vec<u8>),
    HandOver(ConnId, ShardId, Box<Parcel>),
    Datagram(SocketAddr, Vec<u8>),
    Ask(Question),
}

#[derive(Default)]
pub(in crate::shard::sip) struct Fake {
    pub(super) inbox: VecDeque<Heard>,
    pub(super) current: Vec<u8>,
    pub(super) done: Vec<Done>,
    pub(super) next_index: u32,
    pub(super) arrived: Vec<(ConnId, Link)>,
    /// The mesh is full.
    pub(super) full: bool,
}

impl Fake {
    pub(super) fn conn(&mut self) -> ConnId {
        self.next_index += 1;
        ConnId { index: self.next_index, generation: 1 }
    }
}

impl Kernel for Fake {
    fn next(&mut self) -> Option<Event<'_>> {
        Some(match self.inbox.pop_front()? {
            Heard::Event(event) => event,
            Heard::Received(conn, bytes) => {
                self.current = bytes;
                Event::Received { conn, bytes: &self.current }
            }
            Heard::Datagram(remote, bytes) => {
                self.current = bytes;
                Event::Datagram { listener: UDP, remote, bytes: &self.current }
            }
            Heard::Posted(from, record) => {
                self.current = record;
                Event::Posted { from, record: &self.current }
            }
            Heard::Arrived(link, parcel) => {
                let conn = self.conn();
                self.arrived.push((conn, link));
                Event::Arrived { conn, parcel }
            }
        })
    }
    fn read(&mut self, _: ConnId, _: Read) {}
    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        self.done.push(Done::Send(conn, bytes));
    }
    fn close(&mut self, conn: ConnId, _: Ending) {
        self.done.push(Done::Close(conn));
    }
    fn unacknowledged(&mut self, _: ConnId) -> u64 {
        0
    }
    fn connect(&mut self, ticket: Ticket, target: SocketAddr) {
        self.done.push(Done::Connect(ticket, target));
    }
    fn post(&mut self, to: ShardId, record: &[u8]) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        self.done.push(Done::Post(to, record.to_vec()));
        Ok(())
    }
    fn hand_over(&mut self, conn: ConnId, to: ShardId, parcel: Box<Parcel>) {
        self.done.push(Done::HandOver(conn, to, parcel));
    }
    fn send_datagram(&mut self, _: ListenerId, remote: SocketAddr, bytes: &[u8]) {
        self.done.push(Done::Datagram(remote, bytes.to_vec()));
    }
    fn ask(&mut self, question: Question) -> Result<(), Box<Question>> {
        self.done.push(Done::Ask(question));
        Ok(())
    }
}
