//! AMX: a unit beside the vectors with eight registers of 16 rows by 64 bytes, which multiplies unsigned by
//! signed bytes into sums of 32 bits that wrap. What its blocks hold is explained in [`super::tiles`].
//!
//! Stable Rust reaches it by assembly alone. A process asks the system once for the permission to use it, a
//! thread says the shape of its registers before it does, and the unit's first products are compared with
//! their definition: a machine where they differ is one without.
//!
//! Cost: 16 cycles per product of two blocks, four products per step and 64 bytes loaded per cycle.

// Instructions that the machine was asked for at run time, on blocks that are there.
#![allow(unsafe_code)]

use super::tiles::{BYTES, Block, ROWS, Sums, Two, Unit, reference};
use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Whether this machine has the unit, the system lets this process use it, and it computes what it should.
pub fn is_available() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| is_there() && is_permitted() && is_right())
}

/// Bits of `CPUID.7.0:EDX`: tiles, and their products of bytes (Intel's Software Developer's Manual, volume 2).
const TILES_AND_BYTES: u32 = 1 << 24 | 1 << 25;
/// Bits of `XCR0`: the system keeps the shape and the contents of the registers.
const SHAPE_AND_CONTENTS: u64 = 1 << 17 | 1 << 18;

/// Whether machine and system have the unit.
fn is_there() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    #[target_feature(enable = "xsave")]
    fn kept() -> u64 {
        // SAFETY: the caller found that the instruction is there and permitted.
        unsafe { _xgetbv(0) }
    }
    const KEEPS_STATE: u32 = 1 << 27;
    __cpuid(0).eax >= 7
        && __cpuid(1).ecx & KEEPS_STATE != 0
        && is_x86_feature_detected!("xsave")
        && __cpuid_count(7, 0).edx & TILES_AND_BYTES == TILES_AND_BYTES
        // SAFETY: the system saves states, so that they can be asked for.
        && unsafe { kept() } & SHAPE_AND_CONTENTS == SHAPE_AND_CONTENTS
}

/// Asks Linux for the registers' contents, which it gives to processes that ask
/// (Documentation/arch/x86/xstate.rst); other systems are not known here.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn is_permitted() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const CONTENTS: u64 = 18;
    let result: i64;
    // SAFETY: a call of the system that reads and writes no memory of the process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") CONTENTS,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn is_permitted() -> bool {
    false
}

/// Whether products at the extremes and in between are right.
fn is_right() -> bool {
    let byte = |i: usize| match i % 5 {
        0 => 0,
        1 => 0xff,
        2 => 0x80,
        3 => 0x7f,
        _ => (i.wrapping_mul(0x9e37_79b9) >> 11) as u8,
    };
    let block = |seed: usize| {
        let row = |r: usize| std::array::from_fn(|c| byte(seed + r * 67 + c * 3));
        Block(std::array::from_fn(row))
    };
    let two = |seed: usize| [block(seed), block(seed + 7919)];
    let (elements, weights) = ([two(1), two(2), two(3)], [two(4), two(5), two(6)]);
    let (mut sums, mut wanted) = (Sums([[[1; ROWS]; ROWS]; 4]), Sums([[[2; ROWS]; ROWS]; 4]));
    multiply(&Configured::shaped(), &elements, &weights, &mut sums);
    reference(&elements, &weights, &mut wanted);
    sums.0 == wanted.0
}

/// While it lives, this thread's registers have the shape of blocks; it stays on its thread.
pub struct Configured {
    is_shaped: bool,
    stays: PhantomData<*const ()>,
}

impl Configured {
    /// For a unit; that of the definition needs nothing.
    ///
    /// # Panics
    /// If the machine does not have the unit.
    pub fn new(unit: Unit) -> Self {
        if unit != Unit::Amx {
            return Self { is_shaped: false, stays: PhantomData };
        }
        assert!(is_available());
        Self::shaped()
    }

    fn shaped() -> Self {
        /// Palette 1, and per register the bytes of a row and the rows (the manual's `TILECFG`).
        #[repr(C, align(64))]
        struct Shape([u8; 64]);
        let mut shape = Shape([0; 64]);
        shape.0[0] = 1;
        for register in 0..8 {
            shape.0[16 + 2 * register] = BYTES as u8;
            shape.0[48 + register] = ROWS as u8;
        }
        // SAFETY: the machine has the instruction, and the shape is one that it knows.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &shape, options(nostack, readonly)) };
        Self { is_shaped: true, stays: PhantomData }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        if self.is_shaped {
            // SAFETY: as above; also clears what the registers held.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

/// The sums over as many steps as there are of both.
///
/// # Panics
/// If the thread was configured for another unit.
pub fn multiply(configured: &Configured, elements: &[Two], weights: &[Two], sums: &mut Sums) {
    assert!(configured.is_shaped);
    let steps = elements.len().min(weights.len());
    if steps == 0 {
        return sums.0.fill([[0; ROWS]; ROWS]);
    }
    // SAFETY: the machine has the instructions, which only a thread that is configured gets here; `steps` pairs of blocks are read from either slice, and the four
    // blocks of `sums` written; the registers are used by nothing else.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{x} + {row}*1]",
            "tileloadd tmm6, [{w} + {row}*1]",
            "tileloadd tmm5, [{x} + {row}*1 + 1024]",
            "tileloadd tmm7, [{w} + {row}*1 + 1024]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm5, tmm6",
            "tdpbusd tmm2, tmm4, tmm7",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {x}, 2048",
            "add {w}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row}*1], tmm0",
            "tilestored [{sums} + {row}*1 + 1024], tmm1",
            "tilestored [{sums} + {row}*1 + 2048], tmm2",
            "tilestored [{sums} + {row}*1 + 3072], tmm3",
            x = inout(reg) elements.as_ptr() => _,
            w = inout(reg) weights.as_ptr() => _,
            steps = inout(reg) steps => _,
            sums = in(reg) sums.0.as_mut_ptr(),
            row = in(reg) BYTES,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
}
