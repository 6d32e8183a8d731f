//! Who: user, domain, resource, in one normal form that neither wire owns.
//!
//! An address is prepared once at the edge, then compared and hashed as plain bytes: the local part
//! by nodeprep and in its escaped form (XEP-0106), the domain as lower-case A-labels without a
//! trailing dot, the resource by resourceprep. Preparing a normal form again changes nothing.
//! Nothing is ever cut to fit: a part of more than 1,023 octets is an error.
//!
//! RFC 7622 for the parts; RFC 6122, appendices A and B for their profiles, since that is what the
//! servers in service compare by. Code points that Unicode 3.2 did not know pass unchanged (RFC 3454,
//! 7: a query may hold them), so that an emoji in a room's nickname is no error. Does **not** accept
//! IP addresses as domains: no certificate, no SRV record and no dialback key speaks for them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::error::Error;
use std::fmt;
use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::xxh3_64;

mod escape;
mod prepare;
#[cfg(test)]
mod tests;

pub use escape::{escape_local, unescape_local};
pub use prepare::{escape_mapped, prepare_domain, prepare_local, prepare_resource};

/// Raised when any address may change its normal form: hashes, and so homes, move with it.
pub const NORMAL_FORM_VERSION: u32 = 1;

/// Users are dealt to nodes and shards in this many slots.
pub const SLOT_COUNT: u16 = 4_096;

/// One of [`SLOT_COUNT`] slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a hash made by [`AddressRef::bare_hash`].
    pub fn of(hash: u64) -> Self {
        // The remainder is below SLOT_COUNT, so the cast keeps all of it.
        Self((hash % u64::from(SLOT_COUNT)) as u16)
    }

    /// The slot with this number, if there is one.
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOT_COUNT).then_some(Self(number))
    }

    /// Below [`SLOT_COUNT`].
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Why bytes are not an address. The sender's fault; XMPP says `jid-malformed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// `@` without anything before it.
    LocalEmpty,
    /// More than 1,023 octets once prepared.
    LocalTooLong,
    /// A character that nodeprep prohibits, or mixed writing directions.
    LocalProhibited,
    /// No domain.
    DomainEmpty,
    /// More octets than a domain may have.
    DomainTooLong,
    /// Not a host name: a prohibited character, a label too long or empty, a bad A-label.
    DomainInvalid,
    /// An IPv4 or IPv6 address, in any notation. Not supported.
    DomainIsIpLiteral,
    /// `/` without anything behind it.
    ResourceEmpty,
    /// More than 1,023 octets once prepared.
    ResourceTooLong,
    /// A character that resourceprep prohibits, or mixed writing directions.
    ResourceProhibited,
}

impl Malformed {
    /// A sentence for the error's text.
    pub fn reason(self) -> &'static str {
        match self {
            Self::LocalEmpty => "the local part is empty",
            Self::LocalTooLong => "the local part has more than 1023 octets",
            Self::LocalProhibited => "the local part has a character that is not allowed there",
            Self::DomainEmpty => "the domain is empty",
            Self::DomainTooLong => "the domain is too long",
            Self::DomainInvalid => "the domain is not a host name",
            Self::DomainIsIpLiteral => "IP addresses are not supported as domains",
            Self::ResourceEmpty => "the resource is empty",
            Self::ResourceTooLong => "the resource has more than 1023 octets",
            Self::ResourceProhibited => "the resource has a character that is not allowed there",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl Error for Malformed {}

/// An address in its normal form, borrowed. Exists only prepared.
#[derive(Clone, Copy)]
pub struct AddressRef<'a> {
    text: &'a str,
    local_len: u16,
    domain_len: u16,
}

impl<'a> AddressRef<'a> {
    /// Prepares `raw`. Borrows from `raw` if that is normal ASCII already, else from `scratch`,
    /// whose former content is lost.
    pub fn parse(raw: &'a str, scratch: &'a mut String) -> Result<Self, Malformed> {
        if let Some(it) = prepare::already_normal(raw) {
            return Ok(it);
        }
        prepare::normalise(raw, scratch)
    }

    pub(crate) fn of_parts(text: &'a str, local_len: usize, domain_len: usize) -> Self {
        debug_assert!(local_len <= prepare::PART_OCTETS_MAX && domain_len <= 253);
        // Both are at most 1,023, checked by the caller.
        Self { text, local_len: local_len as u16, domain_len: domain_len as u16 }
    }

    fn domain_start(self) -> usize {
        usize::from(self.local_len) + usize::from(self.local_len > 0)
    }

    fn domain_end(self) -> usize {
        self.domain_start() + usize::from(self.domain_len)
    }

    /// Before the `@`, in its escaped form.
    pub fn local(self) -> Option<&'a str> {
        (self.local_len > 0).then(|| &self.text[..usize::from(self.local_len)])
    }

    /// Lower-case A-labels.
    pub fn domain(self) -> &'a str {
        &self.text[self.domain_start()..self.domain_end()]
    }

    /// Behind the first `/`.
    pub fn resource(self) -> Option<&'a str> {
        self.text.get(self.domain_end() + 1..).filter(|it| !it.is_empty())
    }

    /// `local@domain`, or the domain alone.
    pub fn bare(self) -> &'a str {
        &self.text[..self.domain_end()]
    }

    /// All of it.
    pub fn full(self) -> &'a str {
        self.text
    }

    /// Without a resource.
    pub fn is_bare(self) -> bool {
        self.text.len() == self.domain_end()
    }

    /// The same without its resource.
    pub fn without_resource(self) -> Self {
        Self { text: self.bare(), ..self }
    }

    /// xxh3 of the bare form: the same on every node and in every version with the same
    /// [`NORMAL_FORM_VERSION`].
    pub fn bare_hash(self) -> u64 {
        xxh3_64(self.bare().as_bytes())
    }

    /// Where the bare form lives.
    pub fn slot(self) -> Slot {
        Slot::of(self.bare_hash())
    }

    /// An owned copy.
    pub fn to_address(self) -> Address {
        Address { text: self.text.into(), local_len: self.local_len, domain_len: self.domain_len }
    }
}

/// An address in its normal form, owned: one allocation. Equal, ordered and hashed as its text.
#[derive(Clone)]
pub struct Address {
    text: Box<str>,
    local_len: u16,
    domain_len: u16,
}

impl Address {
    /// Prepares `raw`.
    pub fn parse(raw: &str) -> Result<Self, Malformed> {
        AddressRef::parse(raw, &mut String::new()).map(AddressRef::to_address)
    }

    /// Prepares and joins parts that were never one text, as a login name and its host.
    pub fn of(
        local: Option<&str>,
        domain: &str,
        resource: Option<&str>,
    ) -> Result<Self, Malformed> {
        let mut text = String::with_capacity(64);
        let (local_len, domain_len) = prepare::join(local, domain, resource, &mut text)?;
        Ok(AddressRef::of_parts(&text, local_len, domain_len).to_address())
    }

    /// The same user and domain with this resource, which is prepared.
    pub fn with_resource(&self, resource: &str) -> Result<Self, Malformed> {
        let it = self.view();
        let mut text = String::with_capacity(it.bare().len() + 1 + resource.len());
        text.push_str(it.bare());
        text.push('/');
        text.push_str(&prepare_resource(resource)?);
        Ok(AddressRef { text: &text, ..it }.to_address())
    }

    /// Borrowed, with all the questions one can ask it.
    pub fn view(&self) -> AddressRef<'_> {
        AddressRef { text: &self.text, local_len: self.local_len, domain_len: self.domain_len }
    }

    /// See [`AddressRef::local`].
    pub fn local(&self) -> Option<&str> {
        self.view().local()
    }

    /// See [`AddressRef::domain`].
    pub fn domain(&self) -> &str {
        self.view().domain()
    }

    /// See [`AddressRef::resource`].
    pub fn resource(&self) -> Option<&str> {
        self.view().resource()
    }

    /// See [`AddressRef::bare`].
    pub fn bare(&self) -> &str {
        self.view().bare()
    }

    /// See [`AddressRef::full`].
    pub fn full(&self) -> &str {
        &self.text
    }

    /// The same without its resource.
    pub fn to_bare(&self) -> Self {
        self.view().without_resource().to_address()
    }

    /// See [`AddressRef::bare_hash`].
    pub fn bare_hash(&self) -> u64 {
        self.view().bare_hash()
    }

    /// See [`AddressRef::slot`].
    pub fn slot(&self) -> Slot {
        self.view().slot()
    }
}

/// Text alone decides: the lengths of the parts follow from it.
macro_rules! as_its_text {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.text == other.text
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                self.text.cmp(&other.text)
            }
        }
        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.text.hash(state);
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }
    };
}
as_its_text!(Address);
as_its_text!(AddressRef<'_>);

/// So that a map keyed by `Address` can be asked with a text in normal form.
impl Borrow<str> for Address {
    fn borrow(&self) -> &str {
        &self.text
    }
}
