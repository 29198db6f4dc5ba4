//! The rings Z_2^k, 1 ≤ k ≤ 64: elements are the low `k` bits of a `u64`, and messages hold them
//! packed to the bit, least significant bit first.

/// The low `bits` bits set; `bits` from 0 to 64.
#[inline]
pub const fn low_mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// The representative of `value` mod 2^bits in [−2^(bits−1), 2^(bits−1)).
#[inline]
pub const fn to_signed(value: u64, bits: u32) -> i64 {
    ((value << (64 - bits)) as i64) >> (64 - bits)
}

/// Bytes of a message of `count` elements of `bits` bits.
pub const fn packed_bytes(count: usize, bits: u32) -> usize {
    (count * bits as usize).div_ceil(8)
}

/// Packs the low `bits` bits of every element.
pub fn pack(elements: &[u64], bits: u32) -> Vec<u8> {
    let mut packer = Packer::with_capacity(packed_bytes(elements.len(), bits));
    for &element in elements {
        packer.push(element, bits);
    }
    packer.finish()
}

/// Unpacks `count` elements of `bits` bits; `None` unless `bytes` has exactly the bytes of them and
/// the padding bits are zero.
pub fn unpack(bytes: &[u8], count: usize, bits: u32) -> Option<Vec<u64>> {
    if bytes.len() != packed_bytes(count, bits) {
        return None;
    }
    let mut reader = Unpacker::new(bytes);
    let elements = (0..count).map(|_| reader.next(bits)).collect();
    reader.is_exhausted().then_some(elements)
}

/// Writes elements of varying widths to a bit stream.
pub struct Packer {
    bytes: Vec<u8>,
    pending: u128,
    filled: u32,
}

impl Packer {
    /// An empty stream with room for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes + 8), pending: 0, filled: 0 }
    }

    /// An empty stream in memory that is used again.
    pub fn reusing(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, pending: 0, filled: 0 }
    }

    /// Appends the low `bits` bits (at most 64) of `element`.
    #[inline]
    pub fn push(&mut self, element: u64, bits: u32) {
        self.pending |= ((element & low_mask(bits)) as u128) << self.filled;
        self.filled += bits;
        if self.filled >= 64 {
            self.bytes.extend_from_slice(&(self.pending as u64).to_le_bytes());
            self.pending >>= 64;
            self.filled -= 64;
        }
    }

    /// The bytes, the last one padded with zero bits.
    pub fn finish(mut self) -> Vec<u8> {
        let rest = self.filled.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&(self.pending as u64).to_le_bytes()[..rest]);
        self.bytes
    }
}

/// Reads elements of varying widths from a bit stream; past its end it reads zeros.
pub struct Unpacker<'a> {
    bytes: &'a [u8],
    position: usize,
    pending: u128,
    filled: u32,
}

impl<'a> Unpacker<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, pending: 0, filled: 0 }
    }

    /// The next element of `bits` bits (at most 64).
    #[inline]
    pub fn next(&mut self, bits: u32) -> u64 {
        if self.filled < bits {
            let mut word = [0u8; 8];
            let rest = self.bytes.get(self.position..).unwrap_or(&[]);
            let taken = rest.len().min(8);
            word[..taken].copy_from_slice(&rest[..taken]);
            self.position += 8;
            self.pending |= (u64::from_le_bytes(word) as u128) << self.filled;
            self.filled += 64;
        }
        let element = self.pending as u64 & low_mask(bits);
        self.pending >>= bits;
        self.filled -= bits;
        element
    }

    /// Whether everything was read and what is left of the last byte is zero.
    pub fn is_exhausted(&self) -> bool {
        self.pending == 0 && self.position >= self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_round_trips_at_every_width() {
        for bits in 1..=64 {
            let elements: Vec<u64> = (0..37u64)
                .map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & low_mask(bits))
                .collect();
            let bytes = pack(&elements, bits);
            assert_eq!(bytes.len(), packed_bytes(37, bits));
            assert_eq!(unpack(&bytes, 37, bits), Some(elements));
        }
    }

    #[test]
    fn unpacking_refuses_other_lengths_and_set_padding() {
        assert_eq!(unpack(&[0, 0], 1, 5), None);
        assert_eq!(unpack(&[0x1f], 1, 5), Some(vec![31]));
        assert_eq!(unpack(&[0x3f], 1, 5), None);
    }

    #[test]
    fn signed_representatives() {
        assert_eq!(to_signed(0b111, 3), -1);
        assert_eq!(to_signed(0b100, 3), -4);
        assert_eq!(to_signed(u64::MAX, 64), -1);
    }
}
