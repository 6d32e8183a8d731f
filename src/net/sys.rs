//! The calls std does not have, behind safe functions.
//!
//! Does **not** decide anything: each function is one system call or a handful on one descriptor.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::limits::{ACCEPT_BACKLOG_MAX, UNACKNOWLEDGED_TIMEOUT};

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn checked_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = checked(result)?;
    // SAFETY: the callers pass what a call that makes a descriptor returned; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket address as the kernel reads it. Boxed where the kernel reads it later.
#[derive(Clone, Copy)]
pub(super) struct SockAddr {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) length: libc::socklen_t,
}

impl std::fmt::Debug for SockAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SockAddr({:?})", self.address())
    }
}

impl SockAddr {
    fn empty() -> Self {
        // SAFETY: sockaddr_storage is plain data for which zeroes are valid (AF_UNSPEC).
        let storage = unsafe { mem::zeroed() };
        Self { storage, length: size_of::<libc::sockaddr_storage>() as libc::socklen_t }
    }

    pub(super) fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    fn address(&self) -> Option<SocketAddr> {
        match libc::c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that a sockaddr_in lies here; the storage is larger and
                // aligned for every kind of address.
                let v4 = unsafe { *(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = u32::from_be(v4.sin_addr.s_addr).into();
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above, with sockaddr_in6.
                let v6 = unsafe { *(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let ip = v6.sin6_addr.s6_addr.into();
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> Self {
        let mut out = Self::empty();
        match address {
            SocketAddr::V4(v4) => {
                let to = (&raw mut out.storage).cast::<libc::sockaddr_in>();
                // SAFETY: the storage is larger than sockaddr_in and aligned for it.
                unsafe {
                    (*to).sin_family = libc::AF_INET as libc::sa_family_t;
                    (*to).sin_port = v4.port().to_be();
                    (*to).sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                }
                out.length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(v6) => {
                let to = (&raw mut out.storage).cast::<libc::sockaddr_in6>();
                // SAFETY: the storage is larger than sockaddr_in6 and aligned for it.
                unsafe {
                    (*to).sin6_family = libc::AF_INET6 as libc::sa_family_t;
                    (*to).sin6_port = v6.port().to_be();
                    (*to).sin6_addr.s6_addr = v6.ip().octets();
                    (*to).sin6_flowinfo = v6.flowinfo();
                    (*to).sin6_scope_id = v6.scope_id();
                }
                out.length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        out
    }
}

fn option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which lives through the call.
    let result = unsafe {
        let length = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(fd, level, name, (&raw const value).cast(), length)
    };
    checked(result).map(drop)
}

fn tcp_socket(address: SocketAddr, flags: libc::c_int) -> io::Result<OwnedFd> {
    socket(address, libc::SOCK_STREAM | flags)
}

fn socket(address: SocketAddr, kind: libc::c_int) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is involved.
    owned(unsafe { libc::socket(family, libc::SOCK_CLOEXEC | kind, 0) })
}

/// What every connection wants: no waiting for more bytes, no keep-alive probes (XMPP and SIP
/// have their own), an end to a far end that acknowledges nothing (RFC 5482), and, if wanted, few
/// unsent octets in the kernel. Accepted sockets inherit these from their listener.
fn set_up_stream(fd: RawFd, not_sent_bytes: Option<u32>) -> io::Result<()> {
    option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1_i32)?;
    let timeout_ms = UNACKNOWLEDGED_TIMEOUT.as_millis() as libc::c_uint;
    option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, timeout_ms)?;
    if let Some(bytes) = not_sent_bytes {
        option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)?;
    }
    Ok(())
}

/// A listening socket of one shard. Several bind the same address and the kernel deals the
/// connections out among them.
pub(super) fn listen(
    address: SocketAddr,
    nonblocking: bool,
    not_sent_bytes: Option<u32>,
) -> io::Result<OwnedFd> {
    let socket = tcp_socket(address, if nonblocking { libc::SOCK_NONBLOCK } else { 0 })?;
    let fd = socket.as_raw_fd();
    option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1_i32)?;
    option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1_i32)?;
    bind(fd, address)?;
    set_up_stream(fd, not_sent_bytes)?;
    // SAFETY: no memory is involved.
    checked(unsafe { libc::listen(fd, ACCEPT_BACKLOG_MAX) })?;
    Ok(socket)
}

/// A socket of one shard that takes datagrams. Several bind the same address; the kernel deals the
/// far ends out among them, each always to the same one.
pub(super) fn datagrams(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK)?;
    option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1_i32)?;
    bind(socket.as_raw_fd(), address)?;
    Ok(socket)
}

/// The next datagram, with its length, which is more than `into` has if it was cut off.
pub(super) fn receive_from(fd: RawFd, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let mut raw = SockAddr::empty();
    // SAFETY: pointers and lengths describe `into` and `raw`, which live through the call.
    let length = checked_len(unsafe {
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let (to, length) = (into.as_mut_ptr().cast(), into.len());
        libc::recvfrom(fd, to, length, flags, (&raw mut raw.storage).cast(), &raw mut raw.length)
    })?;
    Ok((length, raw.address().ok_or(io::ErrorKind::Unsupported)?))
}

/// Hands over a datagram, if the kernel takes it at once.
pub(super) fn send_to(fd: RawFd, bytes: &[u8], remote: SocketAddr) -> io::Result<usize> {
    let raw = SockAddr::from(remote);
    // SAFETY: pointers and lengths describe `bytes` and `raw`, which live through the call.
    checked_len(unsafe {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::sendto(fd, bytes.as_ptr().cast(), bytes.len(), flags, raw.pointer(), raw.length)
    })
}

/// Is the address free? SO_REUSEPORT alone would let a second switch share our port in silence.
pub(super) fn check_free(address: SocketAddr, datagrams: bool) -> io::Result<()> {
    if datagrams {
        let socket = socket(address, libc::SOCK_DGRAM)?;
        return bind(socket.as_raw_fd(), address);
    }
    let socket = tcp_socket(address, 0)?;
    option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1_i32)?;
    bind(socket.as_raw_fd(), address)?;
    // SAFETY: no memory is involved.
    checked(unsafe { libc::listen(socket.as_raw_fd(), 1) }).map(drop)
}

fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1_i32)?;
    }
    let raw = SockAddr::from(address);
    // SAFETY: pointer and length describe `raw`, which lives through the call.
    checked(unsafe { libc::bind(fd, raw.pointer(), raw.length) }).map(drop)
}

/// A socket to connect with, from `source` if there is one. Its port is chosen when the target is
/// known, so that ports are counted per source and target and not per source.
pub(super) fn outbound(
    source: Option<IpAddr>,
    target: SocketAddr,
    nonblocking: bool,
    not_sent_bytes: Option<u32>,
) -> io::Result<OwnedFd> {
    let socket = tcp_socket(target, if nonblocking { libc::SOCK_NONBLOCK } else { 0 })?;
    set_up_stream(socket.as_raw_fd(), not_sent_bytes)?;
    if let Some(source) = source {
        let fd = socket.as_raw_fd();
        option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1_i32)?;
        let raw = SockAddr::from(SocketAddr::new(source, 0));
        // SAFETY: pointer and length describe `raw`, which lives through the call.
        checked(unsafe { libc::bind(fd, raw.pointer(), raw.length) })?;
    }
    Ok(socket)
}

pub(super) fn connect(fd: RawFd, target: &SockAddr) -> io::Result<()> {
    // SAFETY: pointer and length describe `target`, which lives through the call.
    checked(unsafe { libc::connect(fd, target.pointer(), target.length) }).map(drop)
}

/// The next connection of a listener that does not block.
pub(super) fn accept(listener: RawFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut raw = SockAddr::empty();
    // SAFETY: pointer and length describe `raw`, which lives through the call.
    let socket = owned(unsafe {
        let to = (&raw mut raw.storage).cast();
        libc::accept4(listener, to, &raw mut raw.length, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
    })?;
    let remote = raw.address().ok_or(io::ErrorKind::Unsupported)?;
    Ok((socket, remote))
}

/// The far end's address.
pub(super) fn remote(fd: RawFd) -> io::Result<SocketAddr> {
    name(fd, libc::getpeername)
}

/// Our address.
pub(super) fn local(fd: RawFd) -> io::Result<SocketAddr> {
    name(fd, libc::getsockname)
}

type NameCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn name(fd: RawFd, call: NameCall) -> io::Result<SocketAddr> {
    let mut raw = SockAddr::empty();
    // SAFETY: pointer and length describe `raw`, which lives through the call.
    checked(unsafe { call(fd, (&raw mut raw.storage).cast(), &raw mut raw.length) })?;
    raw.address().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Takes what is there, without waiting.
pub(super) fn receive(fd: RawFd, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `into`, which lives through the call.
    checked_len(unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) })
}

/// Hands over what the kernel takes at once.
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `bytes`, which lives through the call.
    checked_len(unsafe {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags)
    })
}

/// Says that we send no more.
pub(super) fn shut_down(fd: RawFd) {
    // SAFETY: no memory is involved. A failure means that the connection is gone already, which
    // shows elsewhere.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Ends both directions, and an attempt to connect.
pub(super) fn shut_down_both(fd: RawFd) {
    // SAFETY: no memory is involved. A failure means that there is nothing to end.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Makes the close drop what is unsent and tell the far end by a reset.
pub(super) fn reset_on_close(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // A failure leaves an orderly close, which is all right.
    drop(option(fd, libc::SOL_SOCKET, libc::SO_LINGER, linger));
}

/// The error that waits on a socket, if any.
pub(super) fn socket_error(fd: RawFd) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: pointers describe `error` and `length`, which live through the call.
    checked(unsafe {
        let to = (&raw mut error).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, to, &raw mut length)
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Octets written that are not acknowledged yet.
pub(super) fn unacknowledged(fd: RawFd) -> u64 {
    let mut octets: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (TIOCOUTQ) writes one int at the pointer, which is `octets`.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut octets) };
    if result < 0 { 0 } else { u64::try_from(octets).unwrap_or(0) }
}

/// A counter that wakes whoever watches it.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// Adds one to an eventfd.
pub(super) fn ring(bell: &OwnedFd) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: pointer and length describe `one`. A failure means that the counter is full, so its
    // watcher is awake already.
    unsafe { libc::write(bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Sets an eventfd back to zero.
pub(super) fn silence(bell: &OwnedFd) {
    let mut count = [0_u8; 8];
    // SAFETY: pointer and length describe `count`. A failure means that it was zero.
    unsafe { libc::read(bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// An epoll instance.
pub(super) fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Adds, changes or removes (`EPOLL_CTL_…`) what is watched of a descriptor.
pub(super) fn epoll_set(
    epoll: &OwnedFd,
    call: libc::c_int,
    fd: RawFd,
    events: u32,
    token: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: token };
    // SAFETY: the pointer describes `event`, which lives through the call.
    checked(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), call, fd, &raw mut event) }).map(drop)
}

/// Waits for events; without a timeout, for ever. Nanoseconds, so that short deadlines do not
/// become busy loops.
pub(super) fn epoll_wait(
    epoll: &OwnedFd,
    events: &mut [libc::epoll_event],
    timeout: Option<std::time::Duration>,
) -> io::Result<usize> {
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // By number, since older C libraries lack the wrapper (Linux 5.11 has the call).
    // SAFETY: the pointers describe `events` and `time`, which live through the call; the signal
    // mask is absent.
    checked_len(unsafe {
        let no_mask = std::ptr::null::<libc::sigset_t>();
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            count,
            time,
            no_mask,
            8_usize,
        ) as isize
    })
}

/// Raises the soft limit of descriptors to the hard one and returns it.
pub(super) fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer describes `limit`, which lives through both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) < 0 {
            return 1_024;
        }
        let before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) < 0 {
            return before;
        }
    }
    limit.rlim_cur
}

/// Octets of memory this process may lock.
pub(super) fn memory_lock_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer describes `limit`, which lives through the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    if result < 0 { u64::MAX } else { limit.rlim_cur }
}
