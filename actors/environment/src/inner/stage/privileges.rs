//! What a process gives up for good.

use nix::errno::Errno;
use std::io;

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 capabilities each.
const VERSION: u32 = 0x2008_0522;

/// Gives up every capability but some, and the way to any by executing a program.
///
/// # Errors
/// The kernel's: the caller has no `CAP_SETPCAP`, or not what it wants to keep.
pub fn keep_only(numbers: &[u32]) -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    // SAFETY: takes numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) })?;
    // More than the kernel knows: it says where they end.
    for number in 0..64 as libc::c_ulong {
        // SAFETY: takes a number.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }) {
            Err(Errno::EINVAL) => break,
            dropped => dropped?,
        };
    }
    set(numbers)
}

/// Gives up all that a process needs no more which only waits.
///
/// # Errors
/// The kernel's.
pub fn give_up() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    set(&[])
}

/// Effective and permitted are these, inheritable is none.
fn set(numbers: &[u32]) -> io::Result<()> {
    let all = numbers.iter().fold(0u64, |all, number| all | 1 << number);
    let (low, high) = (all as u32, (all >> 32) as u32);
    let header: [u32; 2] = [VERSION, 0];
    let sets: [[u32; 3]; 2] = [[low, low, 0], [high, high, 0]];
    // SAFETY: both are laid out as the call's structures are: words of 32 bits, the
    // header's second the calling process, the sets effective, permitted, inheritable.
    let done = unsafe {
        libc::syscall(
            libc::SYS_capset,
            header.as_ptr(),
            sets.as_ptr().cast::<u32>(),
        )
    };
    Errno::result(done)?;
    Ok(())
}
