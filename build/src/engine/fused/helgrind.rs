//! Tells Valgrind's Helgrind, in tests, which accesses a barrier orders. Helgrind does not understand atomics by
//! itself.
//!
//! Source: Valgrind's `helgrind.h` and `valgrind.h`. Outside Valgrind, a request does nothing.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod requests {
    /// This thread has arrived at the meeting with this tag.
    pub const SEND: usize = 0x4847_0121;
    /// Every access that a thread made before it arrived happens before the accesses that this thread makes from now on.
    pub const RECEIVE: usize = 0x4847_0122;
    /// These bytes are not checked.
    pub const UNTRACKED: usize = 0x4847_0127;

    /// Sends a request with up to two arguments.
    #[expect(unsafe_code, reason = "a sequence of instructions that Valgrind recognizes")]
    pub fn send(request: usize, arguments: [usize; 2]) {
        let request = [request, arguments[0], arguments[1], 0, 0, 0];
        // SAFETY: the rotations add up to 128 bits, and the exchange is of a register with itself: both change nothing.
        // Valgrind recognizes the sequence, reads the six numbers at RAX, and puts its answer into RDX.
        unsafe {
            std::arch::asm!(
                "rol rdi, 3",
                "rol rdi, 13",
                "rol rdi, 61",
                "rol rdi, 51",
                "xchg rbx, rbx",
                in("rax") request.as_ptr(),
                inout("rdx") 0usize => _,
                inout("rdi") 0usize => _,
            );
        }
    }
}

/// Before a thread arrives at meeting `meeting` of `barrier`.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub fn arrive<T>(barrier: &T, meeting: usize) {
    let address = std::ptr::from_ref(barrier) as usize;
    requests::send(requests::UNTRACKED, [address, size_of::<T>()]);
    requests::send(requests::SEND, [address + meeting % 2, 0]);
}

/// After it left.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub fn leave<T>(barrier: &T, meeting: usize) {
    requests::send(requests::RECEIVE, [std::ptr::from_ref(barrier) as usize + meeting % 2, 0]);
}

/// Helgrind's requests are known for this platform only on Linux with x86-64.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub fn arrive<T>(_: &T, _: usize) {}

/// Helgrind's requests are known for this platform only on Linux with x86-64.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub fn leave<T>(_: &T, _: usize) {}
