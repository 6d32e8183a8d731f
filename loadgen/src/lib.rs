//! A load generator for XMPP servers, in reading order.
//!
//! It shares no code with the server it judges: own reader, own SASL, own account of what was
//! delivered. One process plays all clients on one pinned core, so that senders and receivers
//! share a clock and nothing is needed of the server to tell loss, doubles and order.
//!
//! Does **not** play federated peers, SIP, presence or rosters yet.

pub mod run;

pub mod account;
pub mod mark;
pub mod reader;

pub mod link;
pub mod login;
pub mod population;
pub mod sasl;

pub mod proc;
pub mod sys;
