//! Where a part of a message lies in it, so that the same part of another message can be found.
//!
//! Knows **nothing** of what the part is.

/// A part of a text; what is empty lies nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// Of a part that was cut out of the text; `None`: it was not.
    pub(super) fn of(part: &[u8], text: &[u8]) -> Option<Self> {
        if part.is_empty() {
            return Some(Self::default());
        }
        let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        let end = start.checked_add(part.len()).filter(|it| *it <= text.len())?;
        Some(Self { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }

    /// The same of a part that may be missing.
    pub(super) fn of_some(part: Option<&[u8]>, text: &[u8]) -> Option<Option<Self>> {
        match part {
            Some(part) => Self::of(part, text).map(Some),
            None => Some(None),
        }
    }

    /// The part of another text, which is as long.
    pub(super) fn cut(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_again_and_others_are_not() {
        let text = b"MESSAGE sip:a@b".to_vec();
        let span = Span::of(&text[8..], &text).unwrap();
        assert_eq!(span.cut(b"OPTIONS sip:c@d"), b"sip:c@d");
        assert_eq!(Span::of(b"", &text).map(|it| it.cut(&text)), Some(&b""[..]));
        let other = b"sip:a@b".to_vec();
        assert_eq!(Span::of(&other, &text), None);
        assert_eq!(Span::of(&text, &text[1..]), None);
        assert_eq!(Span::of(&text[8..], &text[..12]), None);
    }
}
