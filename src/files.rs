//! Files that people ask for: whole or as before, and with the mode of any other file.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::NamedTempFile;

/// A file in the making, in the directory of the one that it is to become. Temporary files
/// are the owner's alone; this one may be read by whom the process's umask lets.
pub(crate) fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory.unwrap_or(Path::new(".")))
}

/// Gives a file that is whole its name. One that had it is replaced; its mode stays, as it
/// does where a file is plainly written anew.
pub(crate) fn appear(file: NamedTempFile, path: &Path) -> io::Result<File> {
    if let Some(there) = std::fs::symlink_metadata(path).ok().filter(|m| m.is_file()) {
        file.as_file().set_permissions(there.permissions())?;
    }
    file.persist(path).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_that_appears_is_like_one_that_is_plainly_written() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, whole) = (dir.path().join("plain"), dir.path().join("whole"));
        std::fs::write(&plain, "x").unwrap();
        let write = |text: &str| {
            let mut file = beside(&whole).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            appear(file, &whole).unwrap();
        };
        write("x");
        assert_eq!(mode(&whole), mode(&plain));
        // Written anew, both keep what somebody set.
        for path in [&plain, &whole] {
            std::fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
        }
        std::fs::write(&plain, "y").unwrap();
        write("y");
        assert_eq!((mode(&whole), mode(&plain)), (0o640, 0o640));
        assert_eq!(std::fs::read_to_string(&whole).unwrap(), "y");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
