//! May this process use io_uring, and is the kernel new enough?
//!
//! Asked before glommio starts, since glommio panics where io_uring is forbidden.

use std::fmt;
use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::net::buffers::BufferRing;
use crate::net::sys;

/// Why the ring can't be used here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The kernel has it, but the administrator switched it off.
    SwitchedOff { value: String },
    /// A seccomp filter or a security module refuses it, as container runtimes do.
    Forbidden,
    /// The kernel was built without it, or a filter says so.
    Absent,
    /// Older than Linux 6.1.
    TooOld { what: &'static str },
    /// Too little memory may be locked (RLIMIT_MEMLOCK) for the executors' rings.
    MemoryLock { bytes: u64 },
    /// Anything else.
    Other(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SwitchedOff { value } => {
                write!(f, "io_uring is switched off (sysctl kernel.io_uring_disabled = {value})")
            }
            Self::Forbidden => {
                f.write_str("io_uring is forbidden (seccomp filter or security module)")
            }
            Self::Absent => {
                f.write_str("this kernel has no io_uring (ENOSYS), or a filter hides it")
            }
            Self::TooOld { what } => write!(f, "kernel older than 6.1: it lacks {what}"),
            Self::MemoryLock { bytes } => {
                write!(f, "only {bytes} octets of memory may be locked (ulimit -l), 524288 needed")
            }
            Self::Other(error) => write!(f, "io_uring can't be set up: {error}"),
        }
    }
}

/// Sets a ring up as the pump does and asks for the operations it uses.
pub fn ring_usable() -> Result<(), Unusable> {
    let bytes = sys::memory_lock_limit();
    if bytes < GLOMMIO_LOCKS_BYTES {
        return Err(Unusable::MemoryLock { bytes });
    }
    // DEFER_TASKRUN came with 6.1, after multishot receives (6.0).
    let mut ring = builder().build(8).map_err(|error| cause(&error))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|error| cause(&error))?;
    let needed = [
        (opcode::AcceptMulti::CODE, "ACCEPT"),
        (opcode::RecvMulti::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Connect::CODE, "CONNECT"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::AsyncCancel2::CODE, "ASYNC_CANCEL"),
        (opcode::MsgRingData::CODE, "MSG_RING"),
    ];
    if let Some((_, what)) = needed.into_iter().find(|&(code, _)| !probe.is_supported(code)) {
        return Err(Unusable::TooOld { what });
    }
    match BufferRing::new(&mut ring, 8, 64) {
        Ok(_) => Ok(()),
        Err(_) => Err(Unusable::TooOld { what: "provided-buffer rings" }),
    }
}

/// The flags of the pump's ring, without its sizes.
pub(super) fn builder() -> io_uring::Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    builder
}

fn cause(error: &io::Error) -> Unusable {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Unusable::Absent,
        Some(libc::EPERM | libc::EACCES) => {
            let value = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            match value.as_deref().map(str::trim) {
                Ok(value @ ("1" | "2")) => Unusable::SwitchedOff { value: value.to_owned() },
                _ => Unusable::Forbidden,
            }
        }
        Some(libc::EINVAL) => Unusable::TooOld { what: "IORING_SETUP_DEFER_TASKRUN" },
        _ => Unusable::Other(error.to_string()),
    }
}

/// What a glommio executor wants to be allowed to lock.
const GLOMMIO_LOCKS_BYTES: u64 = 512 * 1_024;
