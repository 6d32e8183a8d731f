//! What a session wants done, and why a text of it did not arrive.
//!
//! Words only; what becomes of them is the engine's.

use crate::gateway::session::LegId;
use crate::gateway::typing::{ChatState, Typing};
use crate::time::Moment;

/// Why a text did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The far end says so.
    Status(u16),
    Timeout,
    Unreachable,
    /// There is no such domain.
    Unresolved,
    /// Policy, or a certificate of another.
    Denied,
    /// A bound of ours.
    Full,
    /// This node is being stopped.
    Stopping,
}

impl Why {
    /// The dialog is gone, and the text may go in another.
    pub(super) fn loses_dialog(self) -> bool {
        matches!(self, Self::Status(408 | 480 | 481) | Self::Timeout | Self::Unreachable)
    }

    /// The dialog is gone, and another would do no better (RFC 5057, 5.1).
    pub(super) fn ends_dialog(self) -> bool {
        matches!(self, Self::Status(404 | 410 | 416 | 482..=485 | 502 | 604))
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Our INVITE, in a new dialog.
    Invite(LegId),
    Cancel(LegId),
    Ack(LegId),
    /// The 200 to their INVITE, the first or once more.
    Answer(LegId),
    /// 500 to their INVITE.
    Refuse(LegId),
    Bye(LegId),
    /// The MESSAGE with this text, until then.
    Send(LegId, u32, Moment),
    /// INFO.
    Type(LegId, Typing),
    /// This text has arrived.
    Delivered(u32),
    Bounced(u32, Why),
    /// The local user is told.
    Tell(ChatState),
    /// The dialog is over.
    Over(LegId),
}
