//! A load generator for XMPP servers, in reading order.
//!
//! It shares no code with the server it judges: own reader, own SASL, own account of what was
//! delivered. One process plays all clients on one pinned core, so that senders and receivers
//! share a clock and nothing is needed of the server to tell loss, doubles and order.
//!
//! Does **not** play federated peers or SIP yet.

pub mod fanout;
pub mod logins;
pub mod rosters;
pub mod run;

pub mod account;
pub mod mark;
pub mod measure;
pub mod reader;
pub mod sm;

pub mod link;
pub mod login;
pub mod population;
pub mod sasl;

pub mod proc;
pub mod sys;
