//! What owners that were killed left behind.

use super::group::Group;
use super::{ASIDE, is_slot, kill};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Groups of a machine that are looked at; a large server has some thousands.
const MOST: usize = 20_000;

/// Empties and removes slots of dead owners anywhere below these groups: a new run may
/// have another place in the tree than the dead one. Gives the number of directories
/// that went.
pub(super) fn sweep(tops: &[PathBuf]) -> usize {
    let mut waiting: VecDeque<PathBuf> = tops.iter().cloned().collect();
    let (mut looked, mut removed) = (0, 0);
    while let Some(directory) = waiting.pop_front() {
        looked += 1;
        if looked > MOST {
            tracing::warn!("too many control groups: leftovers were not looked for in all");
            break;
        }
        let entries = std::fs::read_dir(&directory).into_iter().flatten();
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let (path, name) = (entry.path(), entry.file_name());
            match name.to_str() {
                Some(name) if is_slot(name) => removed += usize::from(clear(&path)),
                // Somebody may live there: only an empty one can be removed at all.
                Some(name) if name.starts_with(ASIDE) => {
                    removed += usize::from(std::fs::remove_dir(&path).is_ok());
                }
                _ => waiting.push_back(path),
            }
        }
    }
    removed
}

fn clear(path: &Path) -> bool {
    let cleared = Group::claim(path.to_owned()).and_then(|group| {
        let Some(group) = group else {
            return Ok(false);
        };
        kill::empty(&[&group])?;
        group.remove()?;
        Ok(true)
    });
    cleared.unwrap_or_else(|error| {
        // Another user's, or something in it does not die.
        tracing::debug!(path = %path.display(), %error, "a control group stays");
        false
    })
}
