//! What a SIP partner and an XMPP user are to each other, rule by rule: decisions and texts only.

pub mod watched;
