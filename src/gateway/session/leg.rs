//! One dialog of a session: how far it is, and what it does about what happens to it.
//!
//! RFC 3261, 13 and 15, from both sides. When something is due and which dialog carries texts is **not**
//! known here.
//!
//! Table: `leg.table`.

/// How far one dialog of a session is.
///
/// ```text
///   ours:    inviting -> progressing -> established -> ending -> gone
///                  \________ \_ cancelling ____________/
///   theirs:  offered -> accepting -> established -> ...
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Our INVITE is out.
    Inviting,
    /// Somebody there works on it: it may be cancelled (RFC 3261, 9.1).
    Progressing,
    /// We don't want it any more.
    Cancelling,
    /// Their INVITE has come; the dialog is being stored.
    Offered,
    /// Our 200 is out, and repeated until the ACK comes (RFC 3261, 13.3.1.4).
    Accepting,
    /// Texts may go.
    Established,
    /// Our BYE is out.
    Ending,
    Gone,
}

/// What happens to one dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// 1xx to our INVITE.
    Progress,
    /// 2xx to it.
    Accepted,
    /// Another final answer to it, or none.
    Refused,
    /// It took too long, or nobody waits for it any more.
    Limit,
    /// Their dialog is stored.
    Kept,
    /// It could not be.
    NotKept,
    /// They have cancelled their INVITE.
    Withdrawn,
    /// The ACK of our 200, or a request that shows that they have it.
    Acked,
    /// It did not come (RFC 3261, 13.3.1.4).
    NoAck,
    /// Their BYE.
    Bye,
    /// Whatever became of our BYE.
    Ended,
    /// They don't know the dialog, or can't be reached in it.
    Lost,
    /// We want no more of it.
    Close,
}

/// What one dialog does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Nothing,
    /// The ACK, again if the 2xx came again.
    Ack,
    /// Nobody wanted it any more: ACK, then BYE (RFC 3261, 15).
    AckBye,
    Cancel,
    /// The 200, from now on until the ACK.
    Answer,
    /// 500 to their INVITE.
    Refuse,
    Bye,
}

impl State {
    /// Table: `leg.table`.
    #[must_use]
    pub fn handle(self, input: Input) -> (Self, Act) {
        match (self, input) {
            (Self::Inviting, Input::Progress) => (Self::Progressing, Act::Nothing),
            (Self::Inviting | Self::Progressing, Input::Accepted) => (Self::Established, Act::Ack),
            (Self::Inviting | Self::Progressing | Self::Cancelling, Input::Refused) => {
                (Self::Gone, Act::Nothing)
            }
            (Self::Inviting | Self::Progressing, Input::Limit | Input::Close) => {
                (Self::Cancelling, Act::Cancel)
            }
            // The answer crossed the CANCEL.
            (Self::Cancelling, Input::Accepted) => (Self::Ending, Act::AckBye),
            (Self::Established | Self::Ending, Input::Accepted) => (self, Act::Ack),
            (Self::Offered, Input::Kept) => (Self::Accepting, Act::Answer),
            (Self::Offered, Input::NotKept) => (Self::Gone, Act::Refuse),
            // The transport has answered it.
            (Self::Offered, Input::Withdrawn) => (Self::Gone, Act::Nothing),
            (Self::Accepting, Input::Acked) => (Self::Established, Act::Nothing),
            (Self::Accepting, Input::NoAck) => (Self::Ending, Act::Bye),
            (Self::Accepting | Self::Established | Self::Ending, Input::Bye | Input::Lost) => {
                (Self::Gone, Act::Nothing)
            }
            (Self::Established, Input::Close) => (Self::Ending, Act::Bye),
            (Self::Ending, Input::Ended) => (Self::Gone, Act::Nothing),
            // RFC 3261, 15: whoever was called sends no BYE before the ACK. And all that comes late.
            _ => (self, Act::Nothing),
        }
    }

    /// It may become a dialog that texts go into.
    pub(super) fn is_pending(self) -> bool {
        matches!(self, Self::Inviting | Self::Progressing | Self::Offered | Self::Accepting)
    }
}
