//! Which limit of a container struck. Pure.

use super::exec;
use super::quiet::Usage;
use gametape_schemas::ResourceLimit;

/// An exit code beyond this one was a signal, when the shell around a command says so.
const SIGNALS: i64 = 128;

/// Which limit struck during a command, the gravest first, from what its container had
/// used before it and after it. `code` is absent when its time was over; `note` says
/// whether a code beyond 128 was a signal.
pub fn struck(code: Option<i64>, note: &str, before: &Usage, now: &Usage) -> Option<ResourceLimit> {
    if let Some(limit) = grown(before, now) {
        return Some(limit);
    }
    let is_signal = |signal: i32| {
        code == Some(SIGNALS + i64::from(signal)) && !note.is_empty() && note != exec::EXIT
    };
    if is_signal(libc::SIGXCPU) {
        return Some(ResourceLimit::CpuTime);
    }
    if is_signal(libc::SIGXFSZ) {
        return Some(ResourceLimit::FileSize);
    }
    if now.is_full {
        return Some(ResourceLimit::Disk);
    }
    code.is_none().then_some(ResourceLimit::WallTime)
}

/// Limits that counters tell of in the end, whether or not a command failed for them.
pub fn counted(total: &Usage) -> impl Iterator<Item = ResourceLimit> {
    let memory = (total.oom_kills > 0).then_some(ResourceLimit::Memory);
    let processes = (total.forks_refused > 0).then_some(ResourceLimit::Processes);
    let disk = total.is_full.then_some(ResourceLimit::Disk);
    [memory, processes, disk].into_iter().flatten()
}

fn grown(before: &Usage, now: &Usage) -> Option<ResourceLimit> {
    if now.oom_kills > before.oom_kills {
        return Some(ResourceLimit::Memory);
    }
    (now.forks_refused > before.forks_refused).then_some(ResourceLimit::Processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_limit_is_told() {
        let none = Usage::default();
        let some = |oom_kills, forks_refused, is_full| Usage {
            oom_kills,
            forks_refused,
            is_full,
            ..none
        };
        let all = some(1, 1, true);
        assert_eq!(struck(Some(1), "", &none, &none), None);
        assert_eq!(struck(None, "", &none, &all), Some(ResourceLimit::Memory));
        assert_eq!(
            struck(None, "", &some(1, 0, false), &all),
            Some(ResourceLimit::Processes)
        );
        // What struck earlier is not told again, a full disk is.
        assert_eq!(struck(None, "", &all, &all), Some(ResourceLimit::Disk));
        assert_eq!(
            struck(None, "", &none, &none),
            Some(ResourceLimit::WallTime)
        );
        let file = Some(128 + 25);
        let words = "File size limit exceeded";
        assert_eq!(
            struck(file, words, &none, &none),
            Some(ResourceLimit::FileSize)
        );
        assert_eq!(struck(file, exec::EXIT, &none, &none), None);
        assert_eq!(struck(file, "", &none, &none), None);
        assert_eq!(counted(&all).count(), 3);
    }
}
