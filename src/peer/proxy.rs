//! The header that a balancer or TLS terminator puts in front of a connection: PROXY protocol,
//! version 2 (HAProxy, `doc/proxy-protocol.txt`, 2.2).
//!
//! Read piece by piece and bounded; accepted only from addresses that the configuration trusts, and
//! from those always required: who connects says here who it is, so nobody else may say it. Written
//! too, for connections that go out through such a proxy: the authority names the host to reach.
//!
//! Does **not** read version 1 (text) nor local sockets' paths, and does **not** check the optional
//! checksum: TCP has one.

use std::net::{IpAddr, SocketAddr};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// What stood in front of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Who connected to the proxy. `None`: the proxy itself did (to see whether we live), or it does
    /// not tell; then its own address counts.
    pub source: Option<SocketAddr>,
    /// Where that connection came in.
    pub destination: Option<SocketAddr>,
    /// The name that the client asked for (SNI).
    pub authority: Option<String>,
    /// What the proxy says of the client's TLS.
    pub tls: Option<Tls>,
}

/// TLS as the proxy saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The client showed a certificate, now or when the session began.
    pub has_certificate: bool,
    /// What the proxy's check of it came to; 0 is good.
    pub verify: u32,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// `TLSv1.2`, say.
    pub version: Option<String>,
}

impl Header {
    /// The name for which the proxy vouches: of a certificate that was shown and found good.
    pub fn vouched(&self) -> Option<&str> {
        let tls = self.tls.as_ref().filter(|it| it.has_certificate && it.verify == 0)?;
        tls.common_name.as_deref()
    }
}

/// Why what came is no header. The connection ends: nothing behind it can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not begin like one.
    NotProxy,
    /// A version, command, family or transport that is not known.
    Unknown,
    /// Longer than we read.
    TooLong,
    /// A part is longer than what holds it, or text is not text.
    Malformed,
    /// A part that decides something is there twice.
    Doubled,
}

impl Fault {
    /// For operators.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotProxy => "no PROXY protocol v2 header came from a trusted proxy",
            Self::Unknown => "a PROXY header with an unknown version, command or family",
            Self::TooLong => "a PROXY header that is too long",
            Self::Malformed => "a malformed PROXY header",
            Self::Doubled => "a PROXY header that says something twice",
        }
    }
}

/// Reads a header at the start of `buf`: its length and what it says, or `None` while it is not
/// whole. What can't become one is refused with its first wrong octet.
pub fn read(buf: &[u8]) -> Result<Option<(usize, Header)>, Fault> {
    let begun = buf.len().min(SIGNATURE.len());
    if buf.get(..begun) != SIGNATURE.get(..begun) {
        return Err(Fault::NotProxy);
    }
    let Some((&[version_command, family], rest)) =
        buf.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk)
    else {
        return Ok(None);
    };
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Unknown),
    };
    let octets = match family {
        UNSPECIFIED => 0,
        STREAM_V4 => 12,
        STREAM_V6 => 36,
        STREAM_LOCAL => 216,
        // What the proxy says of itself may be anything.
        _ if is_local => 0,
        _ => return Err(Fault::Unknown),
    };
    let Some((length, rest)) =
        rest.split_first_chunk().map(|(it, rest)| (u16::from_be_bytes(*it), rest))
    else {
        return Ok(None);
    };
    let length = usize::from(length);
    let whole = HEAD_BYTES + length;
    if whole > PROXY_HEADER_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    if !is_local && length < octets {
        return Err(Fault::Malformed);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    if is_local {
        // Its addresses and the rest have to be ignored.
        return Ok(Some((whole, Header::default())));
    }
    let (addresses, extra) = body.split_at_checked(octets).ok_or(Fault::Malformed)?;
    let mut header = Header::default();
    if let Some((source, destination)) = both_addresses(addresses) {
        (header.source, header.destination) = (Some(source), Some(destination));
    }
    for part in Parts(extra) {
        let (kind, value) = part?;
        match kind {
            AUTHORITY => once(&mut header.authority, text(value)?)?,
            SSL => once(&mut header.tls, tls(value)?)?,
            _ => {}
        }
    }
    Ok(Some((whole, header)))
}

/// Writes a header: `source` connects to `destination`, and wants to reach the host `authority`.
pub fn write(
    source: SocketAddr,
    destination: SocketAddr,
    authority: Option<&str>,
    out: &mut Vec<u8>,
) {
    let mut body = Vec::with_capacity(64);
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let family = if let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) {
        body.extend_from_slice(&from.octets());
        body.extend_from_slice(&to.octets());
        STREAM_V4
    } else {
        for it in [from, to] {
            let it = match it {
                IpAddr::V4(it) => it.to_ipv6_mapped(),
                IpAddr::V6(it) => it,
            };
            body.extend_from_slice(&it.octets());
        }
        STREAM_V6
    };
    for port in [source.port(), destination.port()] {
        body.extend_from_slice(&port.to_be_bytes());
    }
    // A name has 253 octets at most (RFC 1035, 2.3.4); a longer one reaches nobody.
    if let Some(name) = authority.filter(|it| it.len() <= 253) {
        part(AUTHORITY, name.as_bytes(), &mut body);
    }
    out.extend_from_slice(&SIGNATURE);
    out.extend_from_slice(&[0x21, family]);
    out.extend_from_slice(&u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&body);
}

fn part(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(value);
}

/// Types, lengths and values, one behind the other.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(u8, &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let found = self.0.split_first_chunk().and_then(|(&[kind, high, low], rest)| {
            let length = usize::from(u16::from_be_bytes([high, low]));
            rest.split_at_checked(length).map(|(value, rest)| (kind, value, rest))
        });
        let Some((kind, value, rest)) = found else {
            self.0 = &[];
            return Some(Err(Fault::Malformed));
        };
        self.0 = rest;
        Some(Ok((kind, value)))
    }
}

fn tls(value: &[u8]) -> Result<Tls, Fault> {
    let (&[client, a, b, c, d], parts) = value.split_first_chunk().ok_or(Fault::Malformed)?;
    let mut tls = Tls {
        has_certificate: client & (CERTIFICATE_NOW | CERTIFICATE_IN_SESSION) != 0
            && client & IS_TLS != 0,
        verify: u32::from_be_bytes([a, b, c, d]),
        ..Tls::default()
    };
    for part in Parts(parts) {
        let (kind, value) = part?;
        match kind {
            SSL_COMMON_NAME => once(&mut tls.common_name, text(value)?)?,
            SSL_VERSION => once(&mut tls.version, text(value)?)?,
            _ => {}
        }
    }
    Ok(tls)
}

/// Source and destination of two internet addresses; nothing for other families.
fn both_addresses(octets: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (ips, ports) = octets.split_at_checked(octets.len().checked_sub(4)?)?;
    let (from, to) = ips.split_at_checked(ips.len() / 2)?;
    let ip = |it: &[u8]| -> Option<IpAddr> {
        let v4 = <[u8; 4]>::try_from(it).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(it).map(IpAddr::from)).ok()
    };
    let &[a, b, c, d] = ports else { return None };
    let at = |it, port| Some(SocketAddr::new(ip(it)?.to_canonical(), u16::from_be_bytes(port)));
    Some((at(from, [a, b])?, at(to, [c, d])?))
}

fn text(value: &[u8]) -> Result<String, Fault> {
    let text = std::str::from_utf8(value).map_err(|_| Fault::Malformed)?;
    if text.chars().any(char::is_control) { Err(Fault::Malformed) } else { Ok(text.to_owned()) }
}

/// What is said twice is said by nobody in particular.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Fault> {
    if place.replace(value).is_some() { Err(Fault::Doubled) } else { Ok(()) }
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version with command, family, length.
const HEAD_BYTES: usize = 16;
const UNSPECIFIED: u8 = 0x00;
const STREAM_V4: u8 = 0x11;
const STREAM_V6: u8 = 0x21;
const STREAM_LOCAL: u8 = 0x31;
/// PP2_TYPE_AUTHORITY.
const AUTHORITY: u8 = 0x02;
/// PP2_TYPE_SSL and what is inside it.
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_COMMON_NAME: u8 = 0x22;
/// PP2_CLIENT_SSL, PP2_CLIENT_CERT_CONN, PP2_CLIENT_CERT_SESS.
const IS_TLS: u8 = 0x01;
const CERTIFICATE_NOW: u8 = 0x02;
const CERTIFICATE_IN_SESSION: u8 = 0x04;

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
