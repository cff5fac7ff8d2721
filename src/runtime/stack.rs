//! Stack pages that deep calls have touched: they go back to the kernel once their coroutine waits.
//!
//! Gzip touches 60 KiB of a stack. A connection may then be idle for a minute, and there may be
//! 10,000 of them.

use crate::limits::STACK_GIVEN_BACK_BYTES;

const PAGE_BYTES: usize = 4096;
/// A coroutine that has used more of its stack than this does not wait in its outer loop.
const WAITING_BYTES_MAX: usize = 16 * 1024;

/// An address near the top of a coroutine's stack.
pub struct StackTop(usize);

impl StackTop {
    /// Of the coroutine that calls, in one of its first functions.
    pub fn here() -> StackTop {
        let mark = 0u8;
        StackTop(&raw const mark as usize)
    }

    /// Gives the pages below the caller back; the next call that needs them gets empty ones. Only
    /// the coroutine calls whose stack it is. Never inlined: the mark then lies below every frame
    /// of the callers.
    #[inline(never)]
    pub fn give_back_below(&self) {
        let mark = 0u8;
        let here = &raw const mark as usize;
        if self.0.saturating_sub(here) > WAITING_BYTES_MAX {
            return;
        }
        // A page for this call and the next.
        let end = (here - PAGE_BYTES) / PAGE_BYTES * PAGE_BYTES;
        let start = (end - STACK_GIVEN_BACK_BYTES) as *mut libc::c_void;
        // SAFETY: the range lies below every frame in use and above the stack's lowest page. It
        // leaves 48 KiB: up to 24 above the mark, 16 from there to this frame, and two pages
        // (limits/ties.rs).
        unsafe { libc::madvise(start, STACK_GIVEN_BACK_BYTES, libc::MADV_DONTNEED) };
    }
}
