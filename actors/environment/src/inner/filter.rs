//! What seccomp denies: calls that neither Python nor a test suite needs, and that
//! escapes from sandboxes do. Everything else is allowed.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Error = Box<dyn std::error::Error>;

/// Denied with EPERM, whatever the arguments.
const DENIED: &[libc::c_long] = &[
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // mounts and namespaces
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    // wide doors into the kernel
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
];

/// Bit that marks the x32 variant of a call: the same architecture to a filter, another
/// number.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
/// Calls that have numbers of their own in x32: ptrace, kexec_load, process_vm_readv,
/// process_vm_writev.
#[cfg(target_arch = "x86_64")]
const X32_OWN: &[i64] = &[521, 528, 539, 540];

/// Installs the filters in the calling thread, for good.
///
/// # Errors
/// When the kernel refuses, or the architecture is not known.
pub fn install() -> Result<(), Error> {
    let mut rules: Rules = DENIED.iter().map(|&call| (call, vec![])).collect();
    rules.insert(
        libc::SYS_clone,
        vec![SeccompRule::new(vec![new_user_namespace()?])?],
    );
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(exotic_family()?)?]);
    #[cfg(target_arch = "x86_64")]
    {
        let same: Rules = rules
            .iter()
            .map(|(call, rule)| (call | X32, rule.clone()))
            .collect();
        rules.extend(same);
        rules.extend(X32_OWN.iter().map(|call| (call | X32, vec![])));
    }
    apply(rules, libc::EPERM)?;
    // clone3 hides its flags behind a pointer; C libraries fall back to clone on ENOSYS.
    apply(Rules::from([(libc::SYS_clone3, vec![])]), libc::ENOSYS)
}

fn new_user_namespace() -> Result<SeccompCondition, Error> {
    let flag = libc::CLONE_NEWUSER as u64;
    Ok(SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(flag),
        flag,
    )?)
}

/// All but local sockets and IP (the network namespace is empty).
fn exotic_family() -> Result<Vec<SeccompCondition>, Error> {
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6]
        .into_iter()
        .map(|family| {
            Ok(SeccompCondition::new(
                0,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Ne,
                family as u64,
            )?)
        })
        .collect()
}

fn apply(rules: Rules, errno: i32) -> Result<(), Error> {
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}
