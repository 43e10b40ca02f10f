//! Hints on memory, which change no value.

use std::ops::Range;

/// Less memory than a few huge pages is not worth the call: these have 2 MB on most processors.
#[cfg(target_os = "linux")]
const LEAST_BYTES: usize = 4 << 20;

/// Starts to read the cache line of `from` into the second-level cache, where the processor has an instruction for it.
#[inline(always)]
pub fn prefetch<T>(from: Option<&T>) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        let from = from.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: every x86-64 processor has the instruction, and it ignores an address that cannot be read.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// Asks the system for huge pages behind `memory`, which was not used yet: fewer pages take less time to give, and their
/// addresses are found sooner. A system that has none, or does not know the wish, gives the usual ones.
///
/// Source: Linux: Documentation/admin-guide/mm/transhuge.rst.
pub fn huge_pages<T>(memory: Range<*const T>) {
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{Advice, madvise};
        use rustix::param::page_size;
        // Whole pages, as the system wants it.
        let begin = memory.start.addr().next_multiple_of(page_size());
        let end = memory.end.addr() / page_size() * page_size();
        if end.saturating_sub(begin) >= LEAST_BYTES {
            let begin_at = memory.start.with_addr(begin).cast_mut().cast();
            // SAFETY: this advice changes nothing that memory holds, whoever's it is.
            let _ = unsafe { madvise(begin_at, end - begin, Advice::LinuxHugepage) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_what_it_holds_wherever_it_begins() {
        let mut bytes: Vec<u8> = (0..9 << 20).map(|at| (at % 251) as u8).collect();
        for range in [0..bytes.len(), 1..bytes.len() - 1, 5000..6000, 7..7] {
            huge_pages(bytes[range].as_ptr_range());
        }
        bytes.extend([0; 5000]);
        huge_pages(bytes.as_ptr_range());
        assert!(bytes[..9 << 20].iter().enumerate().all(|(at, &byte)| byte == (at % 251) as u8));
    }
}
