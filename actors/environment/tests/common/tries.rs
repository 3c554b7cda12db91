//! Scripts that try what must fail, for every back end: they print ALLOWED where it does
//! not. They run with Python inside.

/// Begins the others: `denied(name, number, arguments…)` makes a system call of x86_64
/// and prints whether it was refused.
pub const DENIED: &str = r#"
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def denied(name, number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(number, *args)
    errno = ctypes.get_errno()
    print(name, 'denied' if result == -1 and errno in (1, 38) else f'ALLOWED {result} {errno}')
"#;

/// Calls that no back end lets through; after [`DENIED`]. So many lines.
pub const CALLS: &str = r#"
denied('clone newuser', 56, 0x10000000 | 17, 0, 0, 0, 0)
denied('unshare', 272, 0x10000000)
denied('mount', 165, b'x', b'/tmp', b'tmpfs', 0, 0)
denied('chroot', 161, b'/tmp')
denied('bpf', 321, 0, 0, 0)
denied('keyctl', 250, 0, 0)
denied('perf', 298, 0, 0, 0, 0, 0)
denied('setuid', 105, 0)
"#;
pub const CALLS_LINES: usize = 8;
