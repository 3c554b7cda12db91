//! Giving freed memory back to the operating system.

/// Gives back what libtorch freed but the C library's allocator keeps: after a training
/// that is gigabytes. Does nothing where the allocator has no such call.
pub fn release() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
