//! Preparing the parts of an address: a table for what is normal ASCII already, profiles for the rest.
//!
//! The text is split before anything is mapped, so a character that only becomes `@` or `/` by
//! normalisation can't move a boundary. Mapping and normalising is repeated until nothing changes,
//! since one pass of nodeprep over newer characters may leave capitals behind.
//!
//! RFC 7622, 3.1-3.4; RFC 3454 (stringprep); RFC 6122, A and B; UTS 46 for domains.

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use stringprep::tables;
use unicode_normalization::UnicodeNormalization;

use super::escape::escape_local;
use super::{AddressRef, Malformed};

// RFC 7622, 3.1: each part has at most 1,023 octets.
pub(super) const PART_OCTETS_MAX: usize = 1_023;
// RFC 7622, 3.1: three such parts and two separators.
const WHOLE_OCTETS_MAX: usize = 3 * PART_OCTETS_MAX + 2;
// RFC 1035, 2.3.4: as written, without the root's dot.
const DOMAIN_OCTETS_MAX: usize = 253;
// RFC 1035, 2.3.4: one label.
const LABEL_OCTETS_MAX: usize = 63;

/// Classes of ASCII bytes that are their own normal form.
const LOCAL: u8 = 1;
const DOMAIN: u8 = 2;
const RESOURCE: u8 = 4;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut i = 0x20_usize;
    while i < 0x7f {
        let byte = i as u8;
        let mut class = RESOURCE;
        // RFC 6122, A.5: the separators and XML's own; nodeprep folds capitals.
        let separates =
            matches!(byte, b' ' | b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@');
        if !separates && !byte.is_ascii_uppercase() {
            class |= LOCAL;
        }
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' {
            class |= DOMAIN;
        }
        classes[i] = class;
        i += 1;
    }
    classes
};

fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

fn all(part: &[u8], class: u8) -> bool {
    part.iter().all(|&byte| is(byte, class))
}

/// The same as `all(part, RESOURCE)`, without a branch per byte: most of a long address is resource.
fn all_printable(part: &[u8]) -> bool {
    part.iter().fold(true, |all, byte| all & (0x20..0x7f).contains(byte))
}

/// The address if `raw` is its own normal form and plain to see as such. `None` says nothing.
pub(super) fn already_normal(raw: &str) -> Option<AddressRef<'_>> {
    let bytes = raw.as_bytes();
    if bytes.len() > WHOLE_OCTETS_MAX {
        return None;
    }
    let stop = bytes.iter().position(|&byte| !is(byte, LOCAL)).unwrap_or(bytes.len());
    let (local_len, start) = match bytes.get(stop) {
        Some(b'@') if stop == 0 || stop > PART_OCTETS_MAX => return None,
        Some(b'@') => (stop, stop + 1),
        _ => (0, 0),
    };
    let domain_len = normal_domain_len(&bytes[start..])?;
    let end = start + domain_len;
    if let Some(resource) = bytes.get(end + 1..) {
        // The byte at `end` is the slash: a domain ends nowhere else.
        let fits = !resource.is_empty() && resource.len() <= PART_OCTETS_MAX;
        if !fits || !all_printable(resource) {
            return None;
        }
    }
    Some(AddressRef::of_parts(raw, local_len, domain_len))
}

/// Length of the host name at the start of `bytes`, up to its end or a slash, if it needs no mapping.
fn normal_domain_len(bytes: &[u8]) -> Option<usize> {
    let mut label_start = 0;
    let mut i = 0;
    loop {
        let byte = bytes.get(i).copied();
        match byte {
            Some(byte) if is(byte, DOMAIN) => i += 1,
            None | Some(b'.' | b'/') => {
                let label = &bytes[label_start..i];
                let (first, last) = (label.first()?, label.last()?);
                let hyphen = *first == b'-' || *last == b'-';
                // An A-label is decoded and checked on the slow way.
                if hyphen || label.len() > LABEL_OCTETS_MAX || label.starts_with(b"xn--") {
                    return None;
                }
                if byte == Some(b'.') {
                    i += 1;
                    label_start = i;
                    continue;
                }
                // A last label that starts with a digit may be an IP address.
                return (i <= DOMAIN_OCTETS_MAX && !first.is_ascii_digit()).then_some(i);
            }
            Some(_) => return None,
        }
    }
}

/// Splits `raw`, prepares its parts and joins them in `scratch`.
pub(super) fn normalise<'a>(
    raw: &str,
    scratch: &'a mut String,
) -> Result<AddressRef<'a>, Malformed> {
    // RFC 7622, 3.2: the resource is cut off first, at the first slash, then the local part.
    let (rest, resource) = match raw.split_once('/') {
        Some((rest, resource)) => (rest, Some(resource)),
        None => (raw, None),
    };
    let (local, domain) = match rest.split_once('@') {
        Some((local, domain)) => (Some(local), domain),
        None => (None, rest),
    };
    let (local_len, domain_len) = join(local, domain, resource, scratch)?;
    Ok(AddressRef::of_parts(scratch, local_len, domain_len))
}

/// Prepares the parts and writes the normal form to `text`; lengths of local part and domain.
pub(super) fn join(
    local: Option<&str>,
    domain: &str,
    resource: Option<&str>,
    text: &mut String,
) -> Result<(usize, usize), Malformed> {
    text.clear();
    if let Some(local) = local {
        text.push_str(&prepare_local(local)?);
        text.push('@');
    }
    let local_len = text.len().saturating_sub(1);
    let domain = prepare_domain(domain)?;
    text.push_str(&domain);
    if let Some(resource) = resource {
        text.push('/');
        text.push_str(&prepare_resource(resource)?);
    }
    Ok((local_len, domain.len()))
}

/// RFC 6122, A: nodeprep, at most 1,023 octets. XEP-0106 escapes stay as they are.
pub fn prepare_local(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    let part = if all(raw.as_bytes(), LOCAL) {
        Cow::Borrowed(raw)
    } else {
        let fits = raw.len() <= WHOLE_OCTETS_MAX;
        let part = fits.then(|| settle(raw, true)).ok_or(Malformed::LocalTooLong)?;
        Cow::Owned(part.ok_or(Malformed::LocalProhibited)?)
    };
    match part.len() {
        0 => Err(Malformed::LocalEmpty),
        1..=PART_OCTETS_MAX => Ok(part),
        _ => Err(Malformed::LocalTooLong),
    }
}

/// RFC 6122, B: resourceprep, at most 1,023 octets.
pub fn prepare_resource(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    let part = if all(raw.as_bytes(), RESOURCE) {
        Cow::Borrowed(raw)
    } else {
        let fits = raw.len() <= WHOLE_OCTETS_MAX;
        let part = fits.then(|| settle(raw, false)).ok_or(Malformed::ResourceTooLong)?;
        Cow::Owned(part.ok_or(Malformed::ResourceProhibited)?)
    };
    match part.len() {
        0 => Err(Malformed::ResourceEmpty),
        1..=PART_OCTETS_MAX => Ok(part),
        _ => Err(Malformed::ResourceTooLong),
    }
}

/// Lower-case A-labels without a trailing dot; host names only.
pub fn prepare_domain(raw: &str) -> Result<Cow<'_, str>, Malformed> {
    if normal_domain_len(raw.as_bytes()) == Some(raw.len()) {
        return Ok(Cow::Borrowed(raw));
    }
    if raw.len() > PART_OCTETS_MAX {
        return Err(Malformed::DomainTooLong);
    }
    // Only IPv6 addresses have these; no mapping makes a colon.
    if raw.starts_with('[') || raw.contains(':') {
        return Err(Malformed::DomainIsIpLiteral);
    }
    let ascii = Uts46::new()
        .to_ascii(raw.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Ignore)
        .map_err(|_| Malformed::DomainInvalid)?;
    // RFC 7622, 3.2: a final dot is removed before anything is compared.
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    if name.is_empty() {
        return Err(Malformed::DomainEmpty);
    }
    if name.len() > DOMAIN_OCTETS_MAX {
        return Err(Malformed::DomainTooLong);
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > LABEL_OCTETS_MAX) {
        return Err(Malformed::DomainInvalid);
    }
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err(Malformed::DomainIsIpLiteral);
    }
    Ok(if name.len() == ascii.len() { ascii } else { Cow::Owned(name.to_owned()) })
}

/// Resolvers take `127.1`, `2130706433` and `0x7f000001` for addresses, so a name that ends in a
/// number is one.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x");
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A name of elsewhere as a local part: mapped and normalised first, then escaped (XEP-0106, 4.2),
/// since a character may only become one that is escaped by normalisation. `None` if it has no
/// escaped form.
pub fn escape_mapped(raw: &str) -> Option<String> {
    if raw.len() > WHOLE_OCTETS_MAX {
        return None;
    }
    let mut text = mapped(raw, true);
    for _ in 0..3 {
        let next = mapped(&text, true);
        if next == text {
            return escape_local(&text).map(Cow::into_owned);
        }
        text = next;
    }
    None
}

/// Maps and normalises until nothing changes any more, then checks. `None` if it is prohibited.
fn settle(raw: &str, folds: bool) -> Option<String> {
    let mut text = mapped(raw, folds);
    // One pass is enough for all of Unicode 3.2, two for all that came later.
    for _ in 0..3 {
        let next = mapped(&text, folds);
        if next == text {
            let clean = !text.chars().any(|c| is_prohibited(c, folds)) && !mixes_directions(&text);
            return clean.then_some(text);
        }
        text = next;
    }
    None
}

/// RFC 3454, 3 and 4: map to nothing, fold case (nodeprep), normalise.
fn mapped(text: &str, folds: bool) -> String {
    let kept = text.chars().filter(|&c| !tables::commonly_mapped_to_nothing(c));
    if folds {
        kept.flat_map(tables::case_fold_for_nfkc).nfkc().collect()
    } else {
        kept.nfkc().collect()
    }
}

/// RFC 3454, 5, with the tables of RFC 6122, A.5 and B.5.
fn is_prohibited(c: char, local: bool) -> bool {
    if c.is_ascii() {
        return !is(c as u8, if local { LOCAL } else { RESOURCE });
    }
    tables::non_ascii_space_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
}

/// RFC 3454, 6: text written from right to left has no letters of the other direction and begins and
/// ends with its own.
fn mixes_directions(text: &str) -> bool {
    let ends = [text.chars().next(), text.chars().next_back()];
    text.contains(tables::bidi_r_or_al)
        && (text.contains(tables::bidi_l)
            || ends.iter().flatten().any(|&c| !tables::bidi_r_or_al(c)))
}
