//! Numbers below 1.2e-38, flushed to zero.

use std::marker::PhantomData;

/// While it lives, this thread reads and computes denormal numbers (below 1.2e-38) as zero.
///
/// Adam's moments decay into that range, where arithmetic is a hundred times slower on many processors.
#[derive(Debug)]
pub struct FlushDenormals {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    before: u64,
    /// The register belongs to this thread, so the guard must not leave it.
    _not_send: PhantomData<*const ()>,
}

impl FlushDenormals {
    /// Begins.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub fn begin() -> Self {
        let before = control();
        set_control(before | FLUSH);
        Self { before, _not_send: PhantomData }
    }

    /// Does nothing: for this processor no such control is known.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn begin() -> Self {
        Self { _not_send: PhantomData }
    }
}

impl Drop for FlushDenormals {
    fn drop(&mut self) {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        set_control(self.before);
    }
}

/// MXCSR: flush to zero (bit 15), denormals are zero (bit 6).
#[cfg(target_arch = "x86_64")]
const FLUSH: u64 = 1 << 15 | 1 << 6;

/// FPCR: FZ (bit 24).
#[cfg(target_arch = "aarch64")]
const FLUSH: u64 = 1 << 24;

#[cfg(target_arch = "x86_64")]
fn control() -> u64 {
    let mut value = 0u32;
    // SAFETY: every x86-64 processor has MXCSR. The instruction writes its four bytes to `value`, and nothing else.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
    value.into()
}

#[cfg(target_arch = "x86_64")]
fn set_control(value: u64) {
    let value = value as u32;
    // SAFETY: `control` gave this value, but for two bits that every x86-64 processor allows. Rust assumes the default
    // floating-point environment. This one differs only in that denormal numbers become zero, which is wanted.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags)) };
}

#[cfg(target_arch = "aarch64")]
fn control() -> u64 {
    let value: u64;
    // SAFETY: every AArch64 processor has FPCR, and reading it changes nothing.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

#[cfg(target_arch = "aarch64")]
fn set_control(value: u64) {
    // SAFETY: `control` gave this value, but for a bit that every AArch64 processor allows. Rust assumes the default
    // floating-point environment. This one differs only in that denormal numbers become zero, which is wanted.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

#[cfg(test)]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tests {
    use std::hint::black_box;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn denormals_are_zero_while_the_guard_lives_and_only_on_its_thread() {
        let halved = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        assert!(halved() > 0.0);
        let (began, ended) = (&Barrier::new(2), &Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let guard = FlushDenormals::begin();
                assert_eq!(halved(), 0.0);
                began.wait();
                ended.wait();
                drop(guard);
                assert!(halved() > 0.0);
            });
            began.wait();
            assert!(halved() > 0.0);
            ended.wait();
        });
    }
}
