//! Datagrams in and out of listeners.
//!
//! The driver only says that a socket may have some; they are read here, without waiting, into one
//! buffer, a bounded number a turn. One that the kernel does not take at once is lost, as any
//! datagram may be, and so is one that is longer than the buffer.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAMS_PER_TURN_MAX};
use crate::net::driver::{Base, Driver};
use crate::net::pump::{Pick, Pump};
use crate::net::sys;
use crate::shard::settings::ListenerId;

/// The datagram sockets of a shard.
pub(super) struct Datagrams {
    /// By listener.
    are: Vec<bool>,
    /// Sockets that may have more, each once.
    ready: VecDeque<usize>,
    /// What the turn may still take.
    left: u32,
    buffer: Box<[u8]>,
}

impl Datagrams {
    pub(super) fn new(places: &[usize], listeners: usize) -> Self {
        let are: Vec<bool> = (0..listeners).map(|it| places.contains(&it)).collect();
        let octets = if are.contains(&true) { DATAGRAM_BYTES_MAX } else { 0 };
        Self {
            are,
            // Each listener is there at most once.
            ready: VecDeque::with_capacity(places.len()),
            left: DATAGRAMS_PER_TURN_MAX,
            buffer: vec![0; octets].into_boxed_slice(),
        }
    }

    /// Whether that listener takes datagrams.
    pub(super) fn is(&self, listener: usize) -> bool {
        self.are.get(listener).copied().unwrap_or(false)
    }

    /// A turn begins.
    pub(super) fn begin(&mut self) {
        self.left = DATAGRAMS_PER_TURN_MAX;
    }

    /// A socket may have some.
    pub(super) fn readable(&mut self, listener: usize) {
        if !self.ready.contains(&listener) {
            self.ready.push_back(listener);
        }
    }

    /// Some may be left for the next turn.
    pub(super) fn are_waiting(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The one that was picked.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        self.buffer.get(..length).unwrap_or_default()
    }
}

impl<D: Driver> Pump<D> {
    /// The next datagram, if the turn may take one.
    pub(super) fn pick_datagram(&mut self) -> Option<Pick> {
        let Base { datagrams, listeners, counters, accepting, .. } = &mut self.base;
        while datagrams.left > 0 {
            let &listener = datagrams.ready.front()?;
            let Some(socket) = listeners.get(listener).filter(|_| *accepting) else {
                datagrams.ready.pop_front();
                continue;
            };
            datagrams.left -= 1;
            match sys::receive_from(socket.as_raw_fd(), &mut datagrams.buffer) {
                Ok((length, _)) if length > datagrams.buffer.len() => {
                    counters.datagrams_lost += 1;
                }
                Ok((length, remote)) => {
                    counters.datagrams_in += 1;
                    return Some(Pick::Datagram { listener, remote, length });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    datagrams.ready.pop_front();
                }
                // What an earlier one met on its way: the port was closed.
                Err(_) => {}
            }
        }
        None
    }

    /// Sends one from a listener's address.
    pub(super) fn put_datagram(&mut self, listener: ListenerId, remote: SocketAddr, bytes: &[u8]) {
        let place = usize::from(listener.0);
        let socket = self.base.listeners.get(place).filter(|_| self.base.datagrams.is(place));
        let sent = socket.map(|it| sys::send_to(it.as_raw_fd(), bytes, remote));
        match sent {
            Some(Ok(_)) => self.base.counters.datagrams_out += 1,
            _ => self.base.counters.datagrams_lost += 1,
        }
    }
}
