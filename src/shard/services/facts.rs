//! Plain facts: which software this is, what time it has, and who was seen when.
//!
//! XEP-0012, XEP-0092, XEP-0202. The operating system is **not** told.

use std::time::Duration;

use crate::shard::Shard;
use crate::shard::services::{Answered, Asked, now};
use crate::time::{Moment, Wall};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::write;

/// XEP-0092.
pub(super) fn version(out: &mut Vec<u8>) {
    out.extend_from_slice(b"<query xmlns='jabber:iq:version'><name>Tandem</name><version>");
    write::escape_into(env!("CARGO_PKG_VERSION"), out);
    out.extend_from_slice(b"</version></query>");
}

/// XEP-0202, 4. The zone of the machine is its operator's business: all times are UTC.
pub(super) fn time(wall: Wall, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<time xmlns='urn:xmpp:time'><tzo>+00:00</tzo><utc>");
    write::escape_into(&wall.stamp(), out);
    out.extend_from_slice(b"</utc></time>");
}

impl Shard {
    /// XEP-0012: of the server since when it runs, of a user how long he is away.
    pub(super) fn last_activity(&self, asked: &Asked<'_>) -> Answered {
        if asked.of_server {
            let up = self.now.moment.since(Moment::default());
            return now(|out| last(up, "", out));
        }
        let (user, who) = (asked.carry.to, asked.carry.from);
        if !self.may_see(user, who) {
            // As if there were no such account: a stranger learns nothing.
            return Err(StanzaFault::ServiceUnavailable);
        }
        if self.home.resources(user.bare()).iter().any(|it| it.available.is_some()) {
            return now(|out| last(Duration::ZERO, "", out));
        }
        let seen = self.home.account(user.bare()).and_then(|account| account.last.as_ref());
        let Some(seen) = seen else { return Err(StanzaFault::ServiceUnavailable) };
        let away = Duration::from_micros(self.now.wall.0.saturating_sub(seen.at.0));
        now(|out| last(away, &seen.status, out))
    }
}

fn last(time: Duration, status: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<query xmlns='jabber:iq:last'");
    write::attr("seconds", &time.as_secs().to_string(), out);
    if status.is_empty() {
        return out.extend_from_slice(b"/>");
    }
    out.push(b'>');
    write::escape_into(status, out);
    out.extend_from_slice(b"</query>");
}
