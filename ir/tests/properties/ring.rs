//! Ring elements, their signs and their bits in messages.

use crate::config;
use ir::ring::{Packer, Unpacker, low_mask, pack, packed_bytes, to_signed, unpack};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn packed_elements_come_back(bits in 1..=64u32, elements in vec(any::<u64>(), 0..70)) {
        let bytes = pack(&elements, bits);
        prop_assert_eq!(bytes.len(), packed_bytes(elements.len(), bits));
        let low: Vec<u64> = elements.iter().map(|v| v & low_mask(bits)).collect();
        prop_assert_eq!(unpack(&bytes, elements.len(), bits), Some(low));
    }

    /// Bit `j` of element `i` is bit `i·bits + j` of the message.
    #[test]
    fn every_bit_has_its_place(bits in 1..=64u32, elements in vec(any::<u64>(), 1..40)) {
        let bytes = pack(&elements, bits);
        for (i, element) in elements.iter().enumerate() {
            for j in 0..bits {
                let at = i * bits as usize + j as usize;
                prop_assert_eq!(bytes[at / 8] >> (at % 8) & 1, (element >> j & 1) as u8);
            }
        }
    }

    #[test]
    fn every_other_message_is_refused(
        bits in 1..=64u32,
        elements in vec(any::<u64>(), 0..40),
        flipped in any::<u8>(),
    ) {
        let (count, mut bytes) = (elements.len(), pack(&elements, bits));
        let padding = bytes.len() * 8 - count * bits as usize;
        if padding > 0 {
            let bit = 7 - flipped as usize % padding;
            *bytes.last_mut().unwrap() |= 1 << bit;
            prop_assert_eq!(unpack(&bytes, count, bits), None);
        }
        bytes.push(0);
        prop_assert_eq!(unpack(&bytes, count, bits), None);
    }

    #[test]
    fn streams_of_other_widths_come_back(parts in vec((0..=64u32, any::<u64>()), 0..60)) {
        let mut packer = Packer::reusing(vec![7; 3]);
        parts.iter().for_each(|&(bits, element)| packer.push(element, bits));
        let bytes = packer.finish();
        let bits: usize = parts.iter().map(|(bits, _)| *bits as usize).sum();
        prop_assert_eq!(bytes.len(), bits.div_ceil(8));
        let mut reader = Unpacker::new(&bytes);
        for (bits, element) in parts {
            prop_assert_eq!(reader.next(bits), element & low_mask(bits));
        }
        prop_assert!(reader.is_exhausted());
        prop_assert_eq!(reader.next(64), 0);
    }

    /// The representative that is congruent and within half of the ring on either side of zero.
    #[test]
    fn signed_representatives_are_congruent(bits in 1..=64u32, value in any::<u64>()) {
        let signed = i128::from(to_signed(value, bits));
        let half = 1i128 << (bits - 1);
        prop_assert!((-half..half).contains(&signed));
        prop_assert_eq!((signed - i128::from(value)).rem_euclid(2 * half), 0);
    }
}
