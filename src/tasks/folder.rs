//! Tasks that are folders: Harbor's (`task.toml`) and SWE-bench's task repositories
//! (`task.yaml`). One folder, a folder of folders, or a repository with `tasks/` in it.

use super::read::PlacedRows;
use super::unusable;
use gametape_schemas::Failure;
use gametape_schemas::formats::Place;
use gametape_schemas::formats::rows::Row;
use gametape_schemas::formats::{harbor, task_repo};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Files of a task that are larger than this do not belong on a tape.
const LARGEST: u64 = 16 << 20;

/// Whether a directory is a task folder, or holds some.
pub fn is_task_set(path: &Path) -> bool {
    !task_folders(path).unwrap_or_default().is_empty()
}

/// The rows of a directory, by the names of its folders.
///
/// # Errors
/// `GT-TASKS-FILE` if it holds no task folder or cannot be read.
pub fn rows(path: &Path) -> Result<PlacedRows, Failure> {
    let folders = task_folders(path).map_err(|e| unusable(path, e))?;
    if folders.is_empty() {
        return Err(unusable(
            path,
            "no task.toml and no task.yaml is in it or in a folder of it",
        ));
    }
    let rows = folders.into_iter().enumerate().map(|(index, folder)| {
        let row = row(&folder).map_err(|e| format!("{}: {e}", name(&folder)));
        (Place::Row(index + 1), row)
    });
    Ok(Box::new(rows))
}

fn task_folders(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let is_task = |path: &Path| {
        path.join(harbor::TASK_FILE).is_file() || path.join(task_repo::TASK_FILE).is_file()
    };
    if is_task(path) {
        return Ok(vec![path.to_owned()]);
    }
    for place in [path.to_owned(), path.join("tasks")] {
        let mut found = Vec::new();
        if place.is_dir() {
            for entry in std::fs::read_dir(&place)? {
                let entry = entry?.path();
                if is_task(&entry) {
                    found.push(entry);
                }
            }
        }
        if !found.is_empty() {
            found.sort();
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = absolute.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn row(folder: &Path) -> Result<Row, String> {
    let mut files = harbor::Files::new();
    let mut executable = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|e| e.to_string())?;
        if entry.file_type().is_dir() {
            continue;
        }
        let path = entry
            .path()
            .strip_prefix(folder)
            .map_err(|e| e.to_string())?;
        let path = path
            .to_str()
            .ok_or("the name of a file is no UTF-8")?
            .to_owned();
        if !entry.file_type().is_file() {
            return Err(format!("`{path}` is neither a file nor a directory"));
        }
        let meta = entry.metadata().map_err(|e| e.to_string())?;
        if meta.len() > LARGEST {
            return Err(format!(
                "`{path}` has {} bytes; {LARGEST} are the most",
                meta.len()
            ));
        }
        let bytes = std::fs::read(entry.path()).map_err(|e| format!("`{path}`: {e}"))?;
        if meta.permissions().mode() & 0o111 != 0 {
            executable.push(path.clone());
        }
        files.insert(path, harbor::content(&bytes));
    }
    if files.contains_key(harbor::TASK_FILE) {
        harbor::to_row(&name(folder), files, executable)
    } else {
        task_repo::to_row(&name(folder), files)
    }
}

/// Writes the row of a folder below `out`, as the folder of its id; nothing may be there.
///
/// # Errors
/// What is wrong with the row, or with writing it, in words.
pub fn write(row: &Row, id: &str, out: &Path) -> Result<(), String> {
    if id.is_empty() || id.contains(['/', '\0']) || id == "." || id == ".." {
        return Err("its id is no name of a folder".to_owned());
    }
    let files = match task_repo::to_files(row) {
        Some(files) => files?
            .iter()
            .map(|(path, value)| {
                let bytes = harbor::bytes(value)
                    .ok_or_else(|| format!("`{path}` is no content of a file"))?;
                Ok((path.clone(), bytes, false))
            })
            .collect::<Result<_, String>>()?,
        None => harbor::to_files(row)?,
    };
    let folder = out.join(id);
    let write = || -> std::io::Result<()> {
        std::fs::create_dir(&folder)?;
        for (path, bytes, executable) in &files {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            // A path that goes below a file, or comes twice, is refused by the system.
            let mut file = std::fs::File::create_new(&path)?;
            file.write_all(bytes)?;
            if *executable {
                file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    };
    write().map_err(|e| format!("{} cannot be written: {e}", folder.display()))
}
