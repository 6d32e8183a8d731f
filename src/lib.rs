//! Tandem: a message switch for instant messaging and presence.
//!
//! This page is the table of contents, in reading order. A module uses lower floors only;
//! `tests/tidy.rs` reads the floors from here and checks it. Below `net` there is no kernel, no
//! clock, no randomness, no thread and no `unsafe`: bytes, events and `now` come in as arguments,
//! so that the whole switch runs the same in service, in a simulated world and in a fuzzer.

// Floor 0: ground.
#[forbid(unsafe_code)]
pub mod limits;
#[forbid(unsafe_code)]
pub mod stdx;
#[forbid(unsafe_code)]
pub mod time;

// Floor 1: words.
#[forbid(unsafe_code)]
pub mod address;
#[forbid(unsafe_code)]
pub mod envelope;

// Floor 2: wires. Bytes to words and back; strangers to each other.
#[forbid(unsafe_code)]
pub mod dns;
#[forbid(unsafe_code)]
#[deny(clippy::indexing_slicing)]
pub mod sip;
#[forbid(unsafe_code)]
pub mod tls;
#[forbid(unsafe_code)]
#[deny(clippy::indexing_slicing)]
pub mod xmpp;

// Floor 3: rules. Pure decisions.
#[forbid(unsafe_code)]
pub mod policy;
#[forbid(unsafe_code)]
pub mod presence;
#[forbid(unsafe_code)]
pub mod route;

// Floor 4: parties. A local user's home; a remote domain; what stands between the wires.
#[forbid(unsafe_code)]
pub mod gateway;
#[forbid(unsafe_code)]
pub mod home;
#[forbid(unsafe_code)]
pub mod peer;

// Floor 5: engine. One core's worth of everything, put together.
#[forbid(unsafe_code)]
pub mod shard;

// Floor 6: kernel. Sockets, rings, clock, entropy; the only unsafe.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub mod net;

// Floor 7: process. May use everything.
#[forbid(unsafe_code)]
#[expect(clippy::disallowed_methods, reason = "runs on the control thread, which reads the clock")]
pub mod admin;
#[forbid(unsafe_code)]
pub mod cli;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
#[expect(clippy::disallowed_methods, reason = "the control thread may wait and reads the clock")]
pub mod control;
#[forbid(unsafe_code)]
pub mod tune;
