//! The four transaction machines: RFC 3261, 17; RFC 6026 (Accepted); RFC 4320 (non-INVITE).
//!
//! Pure tables: a state and an input give a state and what is to be done. A machine holds no message,
//! no clock and no connection; whoever runs it keeps two deadlines per transaction, one for saying
//! again ([`Action::Again`]) and one for its end ([`Action::End`]). The timers of RFC 3261, table 4,
//! by their letters:
//!
//! | machine | again | end |
//! |---|---|---|
//! | INVITE client | A (doubles) | B, then D or M |
//! | non-INVITE client | E (doubles up to T2) | F, then K |
//! | INVITE server | 100 after 200 ms; G (doubles up to T2) | H, I or L |
//! | non-INVITE server | 100 after 3.5 s (RFC 4320, 4.1) | J |
//!
//! On a reliable transport A, E and G are not started and D, I, J and K are zero. What the
//! transaction user does without an answer (timer C, a 2xx repeated until its ACK) is **not** here.
//!
//! Tables: `transaction.table`.

mod key;
mod tables;

pub use key::{
    Branch, COOKIE, Parts, ServerKey, branch, merge_key, server_key, write_merge_key,
    write_server_key,
};

use std::time::Duration;

/// RFC 3261, 17.1.1.1: an estimate of the round trip.
pub const T1: Duration = Duration::from_millis(500);
/// The longest pause between two of the same.
pub const T2: Duration = Duration::from_secs(4);
/// How long a message stays in the network.
pub const T4: Duration = Duration::from_secs(5);
/// Timers B, F, H, L and M; N (RFC 6665) is the subscriber's.
pub const LIFE: Duration = Duration::from_secs(32);
/// Timer D on a datagram: at least 32 s.
pub const TIMER_D: Duration = LIFE;
/// RFC 3261, 17.2.1: an INVITE without an answer for so long gets a 100.
pub const TRYING_AFTER: Duration = Duration::from_millis(200);
/// RFC 4320, 4.1: when a client's timer E would have reached T2 another request gets a 100.
pub const TRYING_LATE: Duration = Duration::from_millis(3_500);

/// Which of the four, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    InviteClient(InviteClient),
    Client(Client),
    InviteServer(InviteServer),
    Server(Server),
    /// It is over: nothing may come to it any more.
    Terminated,
}

/// RFC 3261, 17.1.1; RFC 6026, 7.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InviteClient {
    Calling,
    Proceeding,
    Completed,
    Accepted,
}

/// RFC 3261, 17.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    Trying,
    Proceeding,
    Completed,
}

/// RFC 3261, 17.2.1; RFC 6026, 7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InviteServer {
    /// No answer yet, also no 100.
    Trying,
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
}

/// RFC 3261, 17.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    Trying,
    Proceeding,
    Completed,
}

/// What happens to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A 1xx: from the far end (client) or from the transaction's user (server).
    Provisional,
    /// A 2xx.
    Success,
    /// 300 to 699.
    Failure,
    /// The same request again (server).
    Request,
    /// The ACK of an INVITE (server).
    Ack,
    /// The deadline for saying it again has come.
    Again,
    /// The deadline for the end has come.
    End,
    /// The transport failed.
    Lost,
}

impl Input {
    /// All, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Provisional,
        Self::Success,
        Self::Failure,
        Self::Request,
        Self::Ack,
        Self::Again,
        Self::End,
        Self::Lost,
    ];

    /// What a status is to a transaction.
    pub fn of_status(status: u16) -> Self {
        match status {
            ..=199 => Self::Provisional,
            200..=299 => Self::Success,
            _ => Self::Failure,
        }
    }
}

/// What is to be done; in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What the user gave goes out now, and is kept to be repeated.
    Send,
    /// What was sent last goes out again.
    Repeat,
    /// An ACK for the failure at hand goes out (RFC 3261, 17.1.1.3).
    Ack,
    /// A 100 of our own goes out.
    Trying,
    /// The message at hand goes to the user.
    Pass,
    /// The user hears that nobody answered.
    Timeout,
    /// The user hears that the transport failed.
    Lost,
    /// The deadline for saying it again is so far away from now. Each repetition doubles the pause
    /// up to the second value.
    Again(Duration, Duration),
    /// Nothing is said again.
    Quiet,
    /// The deadline for the end is so far away from now.
    End(Duration),
    /// There is no deadline for the end: the user has one.
    Open,
}

/// The answer to an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub next: Machine,
    pub actions: &'static [Action],
}

impl Machine {
    /// A client transaction: its request goes out and its timers start.
    pub fn client(is_invite: bool, reliable: bool) -> Step {
        use Action::{Again, End, Send};
        let (next, actions): (_, &[Action]) = match (is_invite, reliable) {
            (true, true) => (Self::InviteClient(InviteClient::Calling), &[Send, End(LIFE)]),
            (true, false) => {
                (Self::InviteClient(InviteClient::Calling), &[Send, Again(T1, LIFE), End(LIFE)])
            }
            (false, true) => (Self::Client(Client::Trying), &[Send, End(LIFE)]),
            (false, false) => (Self::Client(Client::Trying), &[Send, Again(T1, T2), End(LIFE)]),
        };
        Step { next, actions }
    }

    /// A server transaction: its request goes to the user.
    pub fn server(is_invite: bool) -> Step {
        use Action::{Again, End, Open, Pass};
        if is_invite {
            let actions = &[Pass, Again(TRYING_AFTER, TRYING_AFTER), Open];
            Step { next: Self::InviteServer(InviteServer::Trying), actions }
        } else {
            // RFC 4320, 4.2: after timer F nobody waits for an answer.
            let actions = &[Pass, Again(TRYING_LATE, TRYING_LATE), End(LIFE)];
            Step { next: Self::Server(Server::Trying), actions }
        }
    }

    /// What that input means here. `None`: nothing, and nothing changes.
    pub fn handle(self, input: Input, reliable: bool) -> Option<Step> {
        match self {
            Self::InviteClient(state) => tables::invite_client(state, input, reliable),
            Self::Client(state) => tables::client(state, input, reliable),
            Self::InviteServer(state) => tables::invite_server(state, input, reliable),
            Self::Server(state) => tables::server(state, input, reliable),
            Self::Terminated => None,
        }
    }

    /// The final answer has not come yet, or was not given.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            Self::InviteClient(InviteClient::Calling | InviteClient::Proceeding)
                | Self::Client(Client::Trying | Client::Proceeding)
                | Self::InviteServer(InviteServer::Trying | InviteServer::Proceeding)
                | Self::Server(Server::Trying | Server::Proceeding)
        )
    }
}
