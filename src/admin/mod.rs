//! What operators reach a running node by: the admin port and the control socket.
//!
//! Both are served on the control thread. `http` answers `/health`, `/ready` and `/metrics`; `ctl`
//! answers `tandem ctl` over a unix socket in the words of `protocol`, and `client` is the other
//! end of it.

pub mod client;
pub(crate) mod ctl;
pub(crate) mod http;
pub(crate) mod metrics;
pub mod protocol;
mod records;

/// What a command tells the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; nothing found.
    Done,
    /// Done and something is wrong: an error found, a request refused.
    Refused,
    /// The command line can't be understood.
    Usage,
    /// Warnings only, and they were to count.
    Warnings,
    /// The node or a needed service can't be reached (EX_UNAVAILABLE).
    Unavailable,
    /// Not allowed (EX_NOPERM).
    NotAllowed,
    /// Bad configuration (EX_CONFIG): starting again will not help.
    Config,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Warnings => 3,
            Self::Unavailable => 69,
            Self::NotAllowed => 77,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
