//! What can be had is found by trying: a group is made, limited, entered and removed.

use super::group::Group;
use super::places::{Hierarchy, Version};
use super::usage::GroupLimits;
use super::{Duties, Part, kill, v1, v2};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

static TRIALS: AtomicU64 = AtomicU64::new(0);

/// The best place of a hierarchy for the duties that are wanted.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn find(hierarchy: &Hierarchy, wanted: Duties) -> Result<Part, String> {
    let mut best: Option<Part> = None;
    let mut first = None;
    for parent in hierarchy.candidates() {
        let own = parent == hierarchy.own;
        match at(hierarchy, parent, own, wanted) {
            Ok(part) if part.duties == wanted => return Ok(part),
            Ok(part) => {
                let better = best
                    .as_ref()
                    .is_none_or(|best| part.duties.count() > best.duties.count());
                if better {
                    best = Some(part);
                }
            }
            // The nearest place tells most.
            Err(error) => drop(first.get_or_insert(format!("{}: {error}", parent.display()))),
        }
    }
    match best {
        Some(part) if part.duties != Duties::default() => Ok(part),
        _ => Err(first.unwrap_or_else(|| "no controller is handed out".to_owned())),
    }
}

fn at(hierarchy: &Hierarchy, parent: &Path, own: bool, wanted: Duties) -> io::Result<Part> {
    let offered = match hierarchy.version {
        Version::V1 => v1::duties(&hierarchy.controllers),
        Version::V2 => v2::duties(parent, own),
    };
    let number = TRIALS.fetch_add(1, Ordering::Relaxed);
    let name = super::name_of(&super::owner(), number);
    let Some(group) = Group::make(parent, &name)? else {
        return Err(io::Error::other("the name of a trial is taken"));
    };
    let part = Part {
        version: hierarchy.version,
        top: hierarchy.top.clone(),
        parent: parent.to_owned(),
        duties: offered.and(wanted),
    };
    let entered = enter(&group);
    // Read while it is there; the group goes in any case.
    let duties = working(&part, &group);
    kill::empty(&[&group])?;
    group.remove()?;
    entered?;
    Ok(Part { duties, ..part })
}

/// Those duties whose files take a limit or give a number.
fn working(part: &Part, group: &Group) -> Duties {
    let limits = GroupLimits {
        memory_bytes: Some(1 << 30),
        processes: Some(64),
        cpu_milli: Some(500),
    };
    let keeps = |only: Duties| {
        let part = Part {
            duties: only.and(part.duties),
            ..part.clone()
        };
        part.duties != Duties::default() && part.set(group, &limits).is_ok()
    };
    let none = Duties::default();
    Duties {
        memory: keeps(Duties {
            memory: true,
            ..none
        }),
        processes: keeps(Duties {
            processes: true,
            ..none
        }),
        cpu: keeps(Duties { cpu: true, ..none }),
        cpu_time: part.read(group).cpu_us.is_some(),
        kill: part.duties.kill
            && match part.version {
                Version::V1 => v1::can_kill(group),
                Version::V2 => v2::can_kill(group),
            },
    }
}

/// A process of ours goes in and ends there.
fn enter(group: &Group) -> io::Result<()> {
    // It waits for the end of its input.
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let added = group.add(child.id());
    drop(child.stdin.take());
    child.wait()?;
    added
}
