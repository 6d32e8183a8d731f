//! Values written one after another into octets that are kept, and read again.
//!
//! Whoever writes puts a version in front and reads it first. What is read is checked and **not**
//! believed: a row may be of another version, or damaged.

/// Appends octets with their length.
pub fn put(octets: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(octets.len()).expect("what is kept is small");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(octets);
}

/// Appends a number.
pub fn put_u32(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// Appends a long number.
pub fn put_u64(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_be_bytes());
}

/// What [`put`] and the others wrote, in the same order; `None` where it ends too early.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads from the front.
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// All was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One octet.
    pub fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number.
    pub fn u32(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }

    /// A long number.
    pub fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*first))
    }

    /// Octets with a length.
    pub fn octets(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    /// Octets that are text.
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.octets()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut kept = vec![1];
        put(b"abc", &mut kept);
        put_u32(7, &mut kept);
        put_u64(u64::MAX, &mut kept);
        put(b"", &mut kept);
        let mut fields = Fields::new(&kept);
        assert_eq!(fields.u8(), Some(1));
        assert_eq!(fields.text(), Some("abc"));
        assert_eq!(fields.u32(), Some(7));
        assert_eq!(fields.u64(), Some(u64::MAX));
        assert_eq!(fields.octets(), Some(&b""[..]));
        assert!(fields.is_empty());
        assert_eq!(fields.u8(), None);
    }

    #[test]
    fn a_length_that_lies_is_not_believed() {
        assert_eq!(Fields::new(&[0, 0, 0, 9, 1]).octets(), None);
        assert_eq!(Fields::new(&[255; 5]).octets(), None);
        assert_eq!(Fields::new(&[0, 0, 0, 1, 255]).text(), None);
    }
}
