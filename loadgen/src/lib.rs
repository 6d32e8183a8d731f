//! A load generator for XMPP servers and SIP partners of theirs, in reading order.
//!
//! It shares no code with the server it judges: own reader, own SASL, own account of what was
//! delivered. One process plays all clients on one pinned core, so that senders and receivers
//! share a clock and nothing is needed of the server to tell loss, doubles and order.
//!
//! Does **not** judge certificates.

pub mod plot;
pub mod report;
pub mod result;
pub mod view;

pub mod fanout;
pub mod logins;
pub mod rosters;
pub mod run;
pub mod sip;

pub mod engine;
pub mod flows;
pub mod ledger;
pub mod null;
pub mod pairs;
pub mod party;
pub mod played;
pub mod s2s_chat;
pub mod scenario;
pub mod search;
pub mod spread;

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
