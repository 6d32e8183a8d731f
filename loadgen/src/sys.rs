//! The few kernel calls that std does not have: epoll, a chosen source address, limits, pinning.
//!
//! The only unsafe of this crate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Something new to read, and hang-ups, which need not be asked for. By edge: the kernel polls a
/// socket once per event and not twice, a twelfth of the cost of a message. So who reads a buffer
/// full has to read on.
pub const READ: u32 = (libc::EPOLLIN | libc::EPOLLET) as u32;
/// The same, and new room to send.
pub const READ_WRITE: u32 = READ | libc::EPOLLOUT as u32;

/// What epoll says of one descriptor.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    /// An empty place for the kernel to fill.
    pub const EMPTY: Self = Self(libc::epoll_event { events: 0, u64: 0 });

    /// The token given with the descriptor.
    pub fn token(self) -> u64 {
        self.0.u64
    }

    /// Whether there is room to send.
    pub fn writable(self) -> bool {
        self.0.events & libc::EPOLLOUT as u32 != 0
    }

    /// Whether there is something to read, an end and an error included.
    pub fn readable(self) -> bool {
        self.0.events & !(libc::EPOLLOUT as u32) != 0
    }
}

/// An epoll set.
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds a descriptor under a token.
    pub fn add(&self, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    /// Changes what is asked of a descriptor.
    pub fn change(&self, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    /// Takes a descriptor out; asking for nothing would still tell of hang-ups.
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn control(&self, operation: i32, fd: RawFd, token: u64, interest: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: token };
        // SAFETY: the event lives through the call; the kernel checks the descriptors.
        let done = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &raw mut event) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for events; `None` waits without end. An interrupted wait yields no events.
    pub fn wait(&self, events: &mut [Event], timeout: Option<Duration>) -> io::Result<usize> {
        let span = timeout.map(|t| libc::timespec {
            tv_sec: t.as_secs().cast_signed(),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let span_at = span.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `Event` is a transparent epoll_event and the length is that of the slice; the
        // timespec, where there is one, outlives the call.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len(),
                span_at,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => Ok(0),
                e => Err(e),
            },
        }
    }
}

/// Connects from a source address, leaving the port to the kernel until the target is known:
/// so ports are counted per source and target and not per source.
pub fn connect(source: Option<Ipv4Addr>, target: SocketAddr) -> io::Result<TcpStream> {
    let stream = match (source, target) {
        (Some(source), SocketAddr::V4(target)) => connect_from(source, target)?,
        _ => TcpStream::connect(target)?,
    };
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    simplest_congestion_control(&stream)?;
    Ok(stream)
}

/// Reno, which is always there: the others compute a model of the path for every acknowledgement,
/// which on loopback is the generator's time lost for nothing. The server's side stays as it is.
fn simplest_congestion_control(stream: &TcpStream) -> io::Result<()> {
    let name = b"reno";
    // SAFETY: the name lives through the call and the length is its own.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn connect_from(source: Ipv4Addr, target: std::net::SocketAddrV4) -> io::Result<TcpStream> {
    let ok = |code: i32| if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    ok(fd)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    let one: libc::c_int = 1;
    // SAFETY: the option is an int that lives through the call.
    ok(unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    let name = |ip: Ipv4Addr, port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let here = name(source, 0);
    // SAFETY: the address lives through the call and the length is its own.
    ok(unsafe { libc::bind(fd, (&raw const here).cast(), length) })?;
    let there = name(*target.ip(), target.port());
    // SAFETY: as above.
    ok(unsafe { libc::connect(fd, (&raw const there).cast(), length) })?;
    Ok(stream)
}

/// A listener with a backlog that stands a login storm; std fixes a small one.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(at)?;
    // SAFETY: no pointers; a second listen on a listening socket only changes its backlog.
    if unsafe { libc::listen(listener.as_raw_fd(), 4096) } < 0 {
        return Err(io::Error::last_os_error());
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Raises the soft limit of descriptors to the hard one and says what it is.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives through both calls.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Nanoseconds of CPU of the calling thread.
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives through the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } < 0 {
        return 0;
    }
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Has the kernel wake the calling thread when it asked for, not up to 50 us later.
pub fn wake_on_time() {
    // SAFETY: no pointers. Where it is refused wake-ups are later, and the lateness says so.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

static INTERRUPTED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Whether Ctrl-C (or a polite kill) came since [`catch_interrupts`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(std::sync::atomic::Ordering::Relaxed)
}

/// From now on the first Ctrl-C only says so; a second one ends the process as ever.
pub fn catch_interrupts() {
    extern "C" fn note(signal: libc::c_int) {
        INTERRUPTED.store(true, std::sync::atomic::Ordering::Relaxed);
        // SAFETY: signal(2) may be called in a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let note = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores a flag and calls signal(2), which handlers may.
        unsafe { libc::signal(signal, note) };
    }
}

/// Puts this thread on one core.
pub fn pin(core: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(io::Error::other(format!("can't run on core {core}")))
    }
}
