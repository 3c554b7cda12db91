//! What came of a command: the answer, the limit that struck, what was used. Pure.

use crate::cgroup::GroupUsage;
use crate::failure;
use crate::inside::Ended;
use crate::protocol::Report;
use gametape_schemas::message::ExecOutcome;
use gametape_schemas::{Failure, ResourceLimit, SandboxUsage};
use std::io;

/// Which limit struck during a command, the gravest first. Pure.
pub(super) fn struck(
    ended: &Ended,
    now: &GroupUsage,
    before: &GroupUsage,
    is_full: bool,
) -> Option<ResourceLimit> {
    // What is not counted has not grown.
    let grew = |of: fn(&GroupUsage) -> Option<u64>| of(now).unwrap_or(0) > of(before).unwrap_or(0);
    let signal = ended.reports.iter().find_map(|report| match report {
        Report::Ended { signal, .. } => *signal,
        _ => None,
    });
    if grew(|group| group.oom_kills) {
        return Some(ResourceLimit::Memory);
    }
    if grew(|group| group.pids_denied) {
        return Some(ResourceLimit::Processes);
    }
    match signal {
        Some(libc::SIGXCPU) => return Some(ResourceLimit::CpuTime),
        Some(libc::SIGXFSZ) => return Some(ResourceLimit::FileSize),
        _ => {}
    }
    if is_full {
        return Some(ResourceLimit::Disk);
    }
    ended.timed_out.then_some(ResourceLimit::WallTime)
}

/// Adds a command to what the sandbox used.
pub(super) fn take_note(used: &mut SandboxUsage, ended: &Ended, limit: Option<ResourceLimit>) {
    used.commands += 1;
    if let Some(limit) = limit.filter(|limit| !used.limits.contains(limit)) {
        used.limits.push(limit);
    }
    for report in &ended.reports {
        if let Report::Ended {
            cpu_us,
            max_rss_kib,
            ..
        } = report
        {
            used.cpu_us += cpu_us;
            used.peak_memory_bytes = used.peak_memory_bytes.max(Some(max_rss_kib << 10));
        }
    }
}

/// What the room answers, from what the process and the helper told. Pure.
pub(super) fn outcome(argv: &[String], ended: Ended) -> Result<ExecOutcome, Failure> {
    let mut stderr = ended.stderr.text();
    let mut exit_code = None;
    let mut started = false;
    let mut finished = ended.timed_out;
    for report in &ended.reports {
        match report {
            Report::Ready => {}
            Report::Started => started = true,
            Report::Failed { why } => return Err(failure::exec(why)),
            Report::NotStarted { errno } => {
                let name = argv.first().map_or("", String::as_str);
                let why = io::Error::from_raw_os_error(*errno);
                stderr.push_str(&format!("{name}: {why}\n"));
                // As shells have it: not found, or found and not executable.
                exit_code = Some(if *errno == libc::ENOENT { 127 } else { 126 });
                (started, finished) = (true, true);
            }
            Report::Ended { code, .. } => {
                exit_code = *code;
                finished = true;
            }
        }
    }
    if !started && !ended.timed_out {
        let said: String = stderr.chars().take(400).collect();
        return Err(failure::exec(said.trim()));
    }
    if !finished {
        return Err(failure::died());
    }
    Ok(ExecOutcome {
        exit_code: exit_code.filter(|_| !ended.timed_out),
        timed_out: ended.timed_out,
        truncated_bytes: ended.stdout.dropped() + ended.stderr.dropped(),
        stdout: ended.stdout.text(),
        stderr,
        wall_ms: ended.wall.as_millis() as u64,
        limit: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Capture;
    use std::time::Duration;

    fn ended(reports: &[Report], timed_out: bool) -> Ended {
        let (mut stdout, mut stderr) = (Capture::default(), Capture::default());
        stdout.push(b"out", 100);
        stderr.push(b"bwrap: no", 100);
        Ended {
            reports: reports.to_vec(),
            timed_out,
            stdout,
            stderr,
            wall: Duration::ZERO,
        }
    }

    #[test]
    fn the_gravest_limit_is_told() {
        let killed = |oom, denied| GroupUsage {
            oom_kills: oom,
            pids_denied: denied,
            ..GroupUsage::default()
        };
        let none = GroupUsage::default();
        let told = |now: &GroupUsage, before: &GroupUsage, timed_out, is_full| {
            struck(&ended(&[], timed_out), now, before, is_full)
        };
        let counted = killed(Some(0), Some(0));
        assert_eq!(told(&counted, &none, false, false), None);
        assert_eq!(
            told(&counted, &none, true, false),
            Some(ResourceLimit::WallTime)
        );
        assert_eq!(told(&counted, &none, true, true), Some(ResourceLimit::Disk));
        let once = killed(Some(1), Some(4));
        assert_eq!(
            told(&once, &counted, true, true),
            Some(ResourceLimit::Memory)
        );
        // Of an earlier command.
        assert_eq!(told(&once, &once, false, false), None);
        assert_eq!(
            told(&killed(Some(1), Some(5)), &once, true, false),
            Some(ResourceLimit::Processes)
        );
    }

    #[test]
    fn whose_failure_it_is() {
        let argv = ["x".to_owned()];
        let done = |code, signal| Report::Ended {
            code,
            signal,
            cpu_us: 0,
            max_rss_kib: 0,
        };
        let ok = outcome(&argv, ended(&[Report::Started, done(Some(3), None)], false)).unwrap();
        assert_eq!(
            (ok.exit_code, ok.timed_out, ok.stdout.as_str()),
            (Some(3), false, "out")
        );
        let killed = outcome(&argv, ended(&[Report::Started, done(None, Some(9))], false));
        assert_eq!(killed.unwrap().exit_code, None);
        let late = outcome(&argv, ended(&[Report::Started], true)).unwrap();
        assert!(late.timed_out && late.exit_code.is_none());
        let missing = outcome(&argv, ended(&[Report::NotStarted { errno: 2 }], false)).unwrap();
        assert_eq!(missing.exit_code, Some(127));
        let code = |reports: &[Report]| outcome(&argv, ended(reports, false)).unwrap_err().code;
        assert_eq!(code(&[]), "GT-SANDBOX-EXEC");
        assert_eq!(
            code(&[Report::Failed {
                why: "landlock".into()
            }]),
            "GT-SANDBOX-EXEC"
        );
        assert_eq!(code(&[Report::Started]), "GT-SANDBOX-DIED");
    }
}
