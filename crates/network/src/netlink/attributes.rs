//! Attributes: length, kind, value, padded to four bytes; values of netfilter are in network order.

/// `NLA_F_NESTED`: the value is attributes again.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's kind that are the kind.
const KIND: u16 = 0x3fff;

/// Writes attributes at the end of a message.
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Attributes<'a> {
    pub(super) fn over(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes }
    }

    /// An attribute with these bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.value(kind, |bytes| bytes.extend(value))
    }

    /// One byte.
    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// 32 bits in network order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// 64 bits in network order.
    pub(crate) fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A text with its terminating zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.value(kind, |bytes| {
            bytes.extend(value.as_bytes());
            bytes.push(0);
        })
    }

    /// Attributes within an attribute.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.value(kind | NESTED, |bytes| fill(&mut Attributes { bytes }))
    }

    /// How much has been written: whoever fills a list cuts it before 64 KiB.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn value(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend([0, 0]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self.bytes);
        let length = u16::try_from(self.bytes.len() - start).expect("lists are cut before 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }
}

/// An attribute that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes within.
    pub(crate) fn nested(self) -> impl Iterator<Item = Attribute<'a>> {
        attributes(self.value)
    }
}

/// Reads attributes, until the first one that is not whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & KIND;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, value })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_rubbish_ends_the_list() {
        let mut bytes = Vec::new();
        Attributes::over(&mut bytes).text(1, "ab").nested(2, |inner| {
            inner.u32(3, 7).u8(4, 9);
        });
        assert_eq!(bytes.len() % 4, 0);
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!((read[0].kind, read[0].value), (1, &b"ab\0"[..]));
        let inner: Vec<_> = read[1].nested().map(|inner| (inner.kind, inner.value.to_vec())).collect();
        assert_eq!(inner, [(3, vec![0, 0, 0, 7]), (4, vec![9])]);
        for rubbish in [&[][..], &[1], &[0, 0, 0, 0], &[3, 0, 1, 0], &[200, 0, 1, 0, 1]] {
            assert_eq!(attributes(rubbish).count(), 0, "{rubbish:?}");
        }
    }
}
