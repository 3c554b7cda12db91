//! The last step inside a sandbox, in a program of its own: give up every privilege,
//! set the limits, close the doors, say "ready", become the command.
//!
//! Order matters: uid first (root defeats resource limits and file modes), then
//! rlimits, then Landlock (mounts are made already), then seccomp, then exec. A byte on
//! the ready pipe tells a command that failed from a sandbox that never came up.

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::process::ExitCode;

/// What the program is called with, in this order:
/// `gametape-sandbox READY_FD UID|- NPROC FSIZE_MIB AS_MIB CPU_S -- COMMAND ARG…`
struct Arguments {
    ready: i32,
    uid: Option<u32>,
    processes: u64,
    file_mib: u64,
    memory_mib: u64,
    cpu_s: u64,
    command: Vec<CString>,
}

/// Exit code when the command cannot be found or started, as shells have it.
const NOT_STARTED: u8 = 127;
/// Exit code when the sandbox itself failed; the ready byte is missing then.
const FAILED: u8 = 126;

/// The program.
pub fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!("gametape-sandbox: {what}");
            return ExitCode::from(FAILED);
        }
    };
    match enter(&arguments) {
        Ok(()) => {}
        Err(what) => {
            eprintln!("gametape-sandbox: {what}");
            return ExitCode::from(FAILED);
        }
    }
    // SAFETY: the descriptor was handed over for this purpose; nothing else uses it.
    let mut ready = unsafe { std::fs::File::from_raw_fd(arguments.ready) };
    if ready.write_all(b"+").is_err() {
        return ExitCode::from(FAILED);
    }
    drop(ready);
    let Some(program) = arguments.command.first() else {
        return ExitCode::from(FAILED);
    };
    let error = match nix::unistd::execvp(program, &arguments.command) {
        Err(error) => error,
        Ok(never) => match never {},
    };
    eprintln!("{}: {error}", program.to_string_lossy());
    ExitCode::from(NOT_STARTED)
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut next = |name: &str| args.next().ok_or(format!("{name} is missing"));
    let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
    let ready = number(next("ready")?)?;
    let uid = match next("uid")?.as_str() {
        "-" => None,
        text => Some(text.parse().map_err(|e| format!("uid {text}: {e}"))?),
    };
    let processes = number(next("processes")?)?;
    let file_mib = number(next("file size")?)?;
    let memory_mib = number(next("memory")?)?;
    let cpu_s = number(next("cpu")?)?;
    if next("separator")? != "--" {
        return Err("-- is missing".to_owned());
    }
    let command = args
        .map(CString::new)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| e.to_string())?;
    if command.is_empty() {
        return Err("the command is missing".to_owned());
    }
    Ok(Arguments {
        ready: i32::try_from(ready).map_err(|e| e.to_string())?,
        uid,
        processes,
        file_mib,
        memory_mib,
        cpu_s,
        command,
    })
}

fn enter(arguments: &Arguments) -> Result<(), String> {
    let say = |what: &str| {
        let what = what.to_owned();
        move |error: nix::Error| format!("{what}: {error}")
    };
    if let Some(id) = arguments.uid {
        nix::unistd::setgroups(&[]).map_err(say("setgroups"))?;
        let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
        nix::unistd::setresgid(gid, gid, gid).map_err(say("setgid"))?;
        // Leaving uid 0 also clears every capability.
        nix::unistd::setresuid(uid, uid, uid).map_err(say("setuid"))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(say("no_new_privs"))?;
    let mib = 1u64 << 20;
    for (resource, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, 1024),
        (Resource::RLIMIT_NPROC, arguments.processes),
        (Resource::RLIMIT_FSIZE, arguments.file_mib * mib),
        (Resource::RLIMIT_AS, arguments.memory_mib * mib),
        (Resource::RLIMIT_CPU, arguments.cpu_s),
    ] {
        setrlimit(resource, limit, limit).map_err(say("setrlimit"))?;
    }
    landlock().map_err(|e| format!("landlock: {e}"))?;
    seccomp().map_err(|e| format!("seccomp: {e}"))
}

/// Reading and executing everywhere (what is visible was chosen by the mounts), writing
/// only in the repository, /tmp and /dev. Best effort: an old kernel has none.
fn landlock() -> Result<(), landlock::RulesetError> {
    let abi = ABI::V3;
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?.create()?;
    for (path, access) in [
        ("/", AccessFs::from_read(abi)),
        ("/testbed", AccessFs::from_all(abi)),
        ("/tmp", AccessFs::from_all(abi)),
        ("/dev", AccessFs::from_all(abi)),
        ("/proc", AccessFs::from_all(abi)),
    ] {
        if let Ok(fd) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(fd, access))?;
        }
    }
    rules.restrict_self().map(|_| ())
}

/// Denies (EPERM) what neither Python nor a test suite needs and sandbox escapes do.
fn seccomp() -> Result<(), Box<dyn std::error::Error>> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_userfaultfd,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_open_by_handle_at,
    ] {
        rules.insert(call, vec![]);
    }
    // clone with a new user namespace; clone3 hides its flags behind a pointer, and
    // C libraries fall back to clone only on ENOSYS: a second filter answers that.
    let user_namespace = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(libc::CLONE_NEWUSER as u64),
        libc::CLONE_NEWUSER as u64,
    )?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![user_namespace])?]);
    // Sockets: only local ones and IP (the network namespace is empty).
    let mut exotic = Vec::new();
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
        exotic.push(SeccompCondition::new(
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Ne,
            family as u64,
        )?);
    }
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(exotic)?]);
    install(rules, libc::EPERM as u32)?;
    install(
        BTreeMap::from([(libc::SYS_clone3, vec![])]),
        libc::ENOSYS as u32,
    )
}

fn install(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_strictly() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let good = parse(words("5 65534 64 16 1024 9 -- echo hi").into_iter()).unwrap();
        assert_eq!((good.ready, good.uid, good.cpu_s), (5, Some(65534), 9));
        assert_eq!(good.command.len(), 2);
        assert!(parse(words("5 - 64 16 1024 9 --").into_iter()).is_err());
        assert!(parse(words("5 - 64 16 1024 9 echo").into_iter()).is_err());
        assert!(parse(words("x - 64").into_iter()).is_err());
    }
}
