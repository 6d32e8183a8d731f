//! The prefixes in force inside a stanza.
//!
//! Namespaces in XML 1.0, 4 to 6.3: a prefix holds from its declaration to the end of the element that
//! declares it, and no two attributes of an element are the same once prefixes are resolved. Default
//! namespaces are not kept here, since nothing below the first level asks for them. What the stream
//! header declares is **not** in force: it does not exist on the next stream.

use std::ops::Range;

use crate::xmpp::{chars::Stop, fault::StreamFault, namespace::Ns, scan};

/// The prefixes in force, innermost last.
pub(crate) struct Scope {
    count: usize,
    all: [Binding; BINDINGS_OPEN],
}

/// Prefixes in force at once.
const BINDINGS_OPEN: usize = 16;
/// Attributes of one element that bear a prefix: each is compared with each.
const PREFIXED_ATTRIBUTES: usize = 16;

const TOO_MUCH: Stop = Stop::Fault(StreamFault::PolicyViolation);

/// A prefix and what it stands for, as places in the stanza.
#[derive(Clone, Copy)]
struct Binding {
    prefix: u32,
    uri: u32,
    uri_end: u32,
    prefix_len: u16,
    depth: u16,
}

impl Default for Scope {
    #[inline(always)]
    fn default() -> Self {
        const NONE: Binding = Binding { prefix: 0, uri: 0, uri_end: 0, prefix_len: 0, depth: 0 };
        Self { count: 0, all: [NONE; BINDINGS_OPEN] }
    }
}

impl Scope {
    /// Puts a prefix in force that the element at this depth declares.
    pub(crate) fn bind(
        &mut self,
        prefix: Range<usize>,
        uri: Range<usize>,
        depth: usize,
    ) -> Result<(), Stop> {
        let slot = self.all.get_mut(self.count).ok_or(TOO_MUCH)?;
        *slot = Binding {
            prefix: prefix.start as u32,
            uri: uri.start as u32,
            uri_end: uri.end as u32,
            prefix_len: u16::try_from(prefix.len()).map_err(|_| TOO_MUCH)?,
            depth: depth as u16,
        };
        self.count += 1;
        Ok(())
    }

    /// The namespace name that a prefix stands for.
    pub(crate) fn bound<'a>(&self, buf: &'a [u8], prefix: &[u8]) -> Result<&'a [u8], Stop> {
        if prefix == b"xml" {
            return Ok(Ns::Xml.name().as_bytes());
        }
        let bindings = self.all.get(..self.count).unwrap_or_default();
        bindings
            .iter()
            .rev()
            .find(|it| {
                let start = it.prefix as usize;
                buf.get(start..start + usize::from(it.prefix_len)) == Some(prefix)
            })
            .and_then(|it| buf.get(it.uri as usize..it.uri_end as usize))
            .ok_or(Stop::Fault(StreamFault::BadNamespacePrefix))
    }

    /// Proves that the attributes whose names begin at `attrs` are distinct and their prefixes bound.
    pub(crate) fn distinct(&self, buf: &[u8], attrs: &[u32]) -> Result<(), Stop> {
        let split = |at: &u32| -> Option<(&[u8], &[u8])> {
            let name = scan::name_at(buf, *at);
            let colon = name.iter().position(|b| *b == b':')?;
            let (prefix, local) = (name.get(..colon)?, name.get(colon + 1..)?);
            (prefix != b"xmlns").then_some((prefix, local))
        };
        for (i, (prefix, local)) in attrs.iter().filter_map(split).enumerate() {
            if i >= PREFIXED_ATTRIBUTES {
                return Err(TOO_MUCH);
            }
            let uri = self.bound(buf, prefix)?;
            for (other, same) in attrs.iter().filter_map(split).take(i) {
                if same == local && self.bound(buf, other)? == uri {
                    return Err(StreamFault::NotWellFormed.into());
                }
            }
        }
        Ok(())
    }

    /// Forgets the prefixes that the element at this depth declared, and any deeper.
    #[inline(always)]
    pub(crate) fn unbind(&mut self, depth: usize) {
        while self.count > 0 {
            let last = self.all.get(self.count - 1);
            if last.is_some_and(|it| usize::from(it.depth) < depth) {
                break;
            }
            self.count -= 1;
        }
    }
}
