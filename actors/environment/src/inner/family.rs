//! Who belongs to a living job and who is left over, read from `/proc`.

use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io;

/// Processes of this pid namespace, other than process 1, that are none of `spared` and
/// descend from none of them. (One whose parent has died belongs to process 1.)
pub fn strangers(spared: &[Pid]) -> io::Result<Vec<Pid>> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // It may be gone by now.
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if let Some((parent, false)) = parent_of(&stat) {
            parents.insert(process, parent);
        }
    }
    Ok(outside(&parents, spared))
}

/// The parent in a line of `/proc/PID/stat`, and whether the process has ended already
/// and only waits for its parent.
fn parent_of(stat: &str) -> Option<(i32, bool)> {
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    Some((fields.next()?.parse().ok()?, matches!(state, "Z" | "X")))
}

fn outside(parents: &BTreeMap<i32, i32>, spared: &[Pid]) -> Vec<Pid> {
    let is_spared = |process: i32| spared.contains(&Pid::from_raw(process));
    let belongs = |process: i32| {
        let mut at = process;
        // No line of ancestors is longer than the list of processes.
        for _ in 0..=parents.len() {
            if is_spared(at) {
                return true;
            }
            match parents.get(&at) {
                Some(parent) if *parent > 1 => at = *parent,
                _ => return false,
            }
        }
        false
    };
    let others = parents.keys().filter(|process| **process > 1);
    others
        .filter(|process| !belongs(**process))
        .map(|process| Pid::from_raw(*process))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_of_a_job_are_spared_and_orphans_are_not() {
        // 2 is a job with child 3 and grandchild 4; 5 is an orphan with child 6.
        let parents = BTreeMap::from([(1, 0), (2, 1), (3, 2), (4, 3), (5, 1), (6, 5)]);
        let left = |spared: &[i32]| {
            let spared: Vec<Pid> = spared.iter().copied().map(Pid::from_raw).collect();
            let found = outside(&parents, &spared);
            found.into_iter().map(Pid::as_raw).collect::<Vec<_>>()
        };
        assert_eq!(left(&[2]), [5, 6]);
        assert_eq!(left(&[2, 6]), [5]);
        assert_eq!(left(&[]), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn names_of_processes_may_hold_anything() {
        assert_eq!(parent_of("7 (a) R 9) S 3 7 7"), Some((3, false)));
        assert_eq!(parent_of("7 (x) Z 3 7"), Some((3, true)));
        assert_eq!(parent_of(""), None);
    }
}
