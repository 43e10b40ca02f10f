//! AMX: eight registers of a tile each, and an instruction that multiplies two of them.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and `TDPBF16PS` in volume 2;
//! Linux: Documentation/arch/x86/xstate.rst.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::ops::Range;
use std::sync::OnceLock;

use super::{Bf16Tile, Term};
use crate::simd::{Block, LANES};

/// `LDTILECFG`'s memory: all registers have 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfiguration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: TileConfiguration = TileConfiguration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Whether the processor has the unit and the system lets this process use it.
pub fn is_available() -> bool {
    static IS_AVAILABLE: OnceLock<bool> = OnceLock::new();
    *IS_AVAILABLE.get_or_init(|| {
        const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
        std::arch::x86_64::__get_cpuid_max(0).0 >= 7
            && __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES
            && is_permitted()
    })
}

/// Asks Linux for the registers of tiles, as it wants of each process. It refuses where it does not know them.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILE_DATA: usize = 18;
    let result: isize;
    // SAFETY: this call takes two numbers and touches no memory of ours. `syscall` overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Makes the registers ready.
///
/// # Safety
/// [`is_available`] is true.
pub unsafe fn begin() {
    // SAFETY: the processor has the instruction, and the system permits it. It reads the 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly, preserves_flags)) };
}

/// Gives the registers back.
///
/// # Safety
/// [`is_available`] is true.
pub unsafe fn end() {
    // SAFETY: the processor has the instruction, and the system permits it.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// Adds a product to the rows at `sums`, which are `stride` blocks apart.
///
/// # Safety
/// [`begin`] made the registers of this thread ready. The rows are the caller's to write.
#[inline(always)]
pub unsafe fn multiply<const C: usize>(terms: &[Term<C>], sums: *mut Block, stride: usize) {
    const { assert!(C == 1 || C == 2) };
    if terms.is_empty() {
        return;
    }
    let stride = stride * size_of::<Block>();
    let Range { start, end } = terms.as_ptr_range();
    // SAFETY: as the caller promises. The second half of the rows begins 16 rows after the first.
    unsafe {
        let halves = [sums, sums.byte_add(LANES * stride)];
        match C {
            1 => add_one_column(start.cast(), end.cast(), halves, stride),
            _ => add_two_columns(start.cast(), end.cast(), halves, stride),
        }
    }
}

// In both, the registers 0 to 3 hold the sums, 4 and 5 the left tiles, 6 and 7 the right ones. The compiler uses none of them.

/// Adds the terms from `term` to `end`, at least one, to 16 rows of a block in each half.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn add_one_column(term: *const Term<1>, end: *const Term<1>, halves: [*mut Block; 2], stride: usize) {
    // SAFETY: a term is the addresses of three tiles, 16 rows of 64 bytes each, that live as long as it. The sums are the
    // caller's to write, and a block of each row is read and written.
    unsafe {
        asm!(
            "tileloadd tmm0, [{first} + {stride}]",
            "tileloadd tmm2, [{second} + {stride}]",
            "2:",
            "mov {tile}, [{term}]",
            "tileloadd tmm4, [{tile} + {row}]",
            "mov {tile}, [{term} + 16]",
            "tileloadd tmm6, [{tile} + {row}]",
            "mov {tile}, [{term} + 8]",
            "tileloadd tmm5, [{tile} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "add {term}, 24",
            "cmp {term}, {end}",
            "jne 2b",
            "tilestored [{first} + {stride}], tmm0",
            "tilestored [{second} + {stride}], tmm2",
            first = in(reg) halves[0],
            second = in(reg) halves[1],
            stride = in(reg) stride,
            row = in(reg) size_of::<Bf16Tile>() / LANES,
            term = inout(reg) term => _,
            end = in(reg) end,
            tile = out(reg) _,
            options(nostack)
        );
    }
}

/// The same for two blocks in each row.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn add_two_columns(term: *const Term<2>, end: *const Term<2>, halves: [*mut Block; 2], stride: usize) {
    // SAFETY: a term is the addresses of four tiles, 16 rows of 64 bytes each, that live as long as it. The sums are the
    // caller's to write, and two blocks of each row are read and written.
    unsafe {
        asm!(
            "tileloadd tmm0, [{first} + {stride}]",
            "tileloadd tmm1, [{first} + {stride} + 64]",
            "tileloadd tmm2, [{second} + {stride}]",
            "tileloadd tmm3, [{second} + {stride} + 64]",
            "2:",
            "mov {tile}, [{term}]",
            "tileloadd tmm4, [{tile} + {row}]",
            "mov {tile}, [{term} + 16]",
            "tileloadd tmm6, [{tile} + {row}]",
            "mov {tile}, [{term} + 24]",
            "tileloadd tmm7, [{tile} + {row}]",
            "mov {tile}, [{term} + 8]",
            "tileloadd tmm5, [{tile} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {term}, 32",
            "cmp {term}, {end}",
            "jne 2b",
            "tilestored [{first} + {stride}], tmm0",
            "tilestored [{first} + {stride} + 64], tmm1",
            "tilestored [{second} + {stride}], tmm2",
            "tilestored [{second} + {stride} + 64], tmm3",
            first = in(reg) halves[0],
            second = in(reg) halves[1],
            stride = in(reg) stride,
            row = in(reg) size_of::<Bf16Tile>() / LANES,
            term = inout(reg) term => _,
            end = in(reg) end,
            tile = out(reg) _,
            options(nostack)
        );
    }
}
