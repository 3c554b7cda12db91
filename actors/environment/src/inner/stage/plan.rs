//! The words that a sandbox is described by, read strictly: the options of bubblewrap that
//! [`crate::bubblewrap::arguments`] writes, and no other. Pure.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// A sandbox to be made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Name of the machine inside.
    pub hostname: String,
    /// The uid and gid in a user namespace; none without one.
    pub ids: Option<(u32, u32)>,
    /// Whether further user namespaces are refused.
    pub no_more_users: bool,
    /// Numbers of the capabilities that are kept.
    pub capabilities: Vec<u32>,
    /// What is made in the new root, in this order.
    pub steps: Vec<Step>,
    /// For lists of processes.
    pub label: OsString,
}

/// One thing in the new root. All paths are absolute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// What the host has at `from`, with all that is mounted below it.
    Bind {
        /// On the host.
        from: PathBuf,
        /// Inside.
        at: PathBuf,
        /// Nothing below it can be written.
        read_only: bool,
        /// It is left out when the host has no such thing.
        optional: bool,
    },
    /// A symbolic link.
    Link {
        /// Its text.
        target: PathBuf,
        /// Inside.
        at: PathBuf,
    },
    /// A directory.
    Directory {
        /// Inside.
        at: PathBuf,
        /// Permissions.
        mode: u32,
    },
    /// An empty file system in memory.
    Memory {
        /// Inside.
        at: PathBuf,
        /// Permissions of its root.
        mode: u32,
        /// Bytes at most.
        size: Option<u64>,
        /// It stays empty.
        read_only: bool,
    },
    /// A mount is made read-only afterwards.
    ReadOnly {
        /// Inside.
        at: PathBuf,
    },
    /// Processes of the new namespace.
    Processes {
        /// Inside.
        at: PathBuf,
    },
    /// The few devices that a program needs.
    Devices {
        /// Inside.
        at: PathBuf,
    },
}

/// Capabilities that a plan may name.
const CAPABILITIES: [(&str, u32); 3] = [("CAP_KILL", 5), ("CAP_SETGID", 6), ("CAP_SETUID", 7)];
/// What every plan must ask for: less would not be a sandbox, and this program makes
/// nothing less.
const ALWAYS: [&str; 7] = [
    "--unshare-pid",
    "--unshare-net",
    "--unshare-ipc",
    "--unshare-uts",
    "--as-pid-1",
    "--die-with-parent",
    "--new-session",
];
/// Permissions where none are named.
const PLAIN: u32 = 0o755;

/// Reads a plan. After `--` come the helper's place inside and its label.
///
/// # Errors
/// Says which word is unknown, lacks its value or is missing.
pub fn read(words: &[OsString]) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let mut seen = Vec::new();
    let (mut uid, mut gid, mut users) = (None, None, false);
    let (mut mode, mut size) = (None, None);
    let mut rest = words.iter();
    loop {
        let word = rest.next().ok_or("the plan has no end (`--`)")?;
        let word = word.to_str().ok_or("a word is not text")?;
        let mut value = || rest.next().ok_or(format!("{word} lacks its value"));
        match word {
            "--" => break,
            "--unshare-cgroup-try" => {}
            "--unshare-user" => users = true,
            "--disable-userns" => plan.no_more_users = true,
            "--uid" => uid = Some(number(word, value()?, 10)?),
            "--gid" => gid = Some(number(word, value()?, 10)?),
            "--hostname" => plan.hostname = known(word, value()?)?.to_owned(),
            "--cap-drop" => match known(word, value()?)? {
                "ALL" => plan.capabilities.clear(),
                other => return Err(format!("--cap-drop {other}: only ALL is known")),
            },
            "--cap-add" => plan.capabilities.push(capability(known(word, value()?)?)?),
            "--perms" => mode = Some(number(word, value()?, 8)?),
            "--size" => size = Some(u64::from(number(word, value()?, 10)?)),
            "--chdir" => match known(word, value()?)? {
                "/" => {}
                other => return Err(format!("--chdir {other}: only / is known")),
            },
            "--dir" => plan.steps.push(Step::Directory {
                at: inside(word, value()?)?,
                mode: mode.take().unwrap_or(PLAIN),
            }),
            "--tmpfs" => plan.steps.push(Step::Memory {
                at: inside(word, value()?)?,
                mode: mode.take().unwrap_or(PLAIN),
                size: size.take(),
                read_only: false,
            }),
            "--remount-ro" => close(&mut plan.steps, inside(word, value()?)?),
            "--proc" => plan.steps.push(Step::Processes {
                at: inside(word, value()?)?,
            }),
            "--dev" => plan.steps.push(Step::Devices {
                at: inside(word, value()?)?,
            }),
            "--symlink" => plan.steps.push(Step::Link {
                target: value()?.into(),
                at: inside(word, value()?)?,
            }),
            "--bind" | "--ro-bind" | "--ro-bind-try" => plan.steps.push(Step::Bind {
                from: inside(word, value()?)?,
                at: inside(word, value()?)?,
                read_only: word != "--bind",
                optional: word == "--ro-bind-try",
            }),
            other if ALWAYS.contains(&other) => seen.push(other),
            other => return Err(format!("unknown word {other}")),
        }
        // They belong to the word that follows them.
        let is_prefix = matches!(word, "--perms" | "--size");
        if !is_prefix && (mode.is_some() || size.is_some()) {
            return Err(format!("{word} has no permissions and no size"));
        }
    }
    // The helper is this program: it goes on by itself.
    plan.label = rest.nth(1).cloned().unwrap_or_default();
    if let Some(missing) = ALWAYS.iter().find(|word| !seen.contains(*word)) {
        return Err(format!("{missing} is missing"));
    }
    plan.ids = match (users, uid, gid) {
        (true, Some(uid), Some(gid)) => Some((uid, gid)),
        (false, None, None) => None,
        _ => return Err("--unshare-user, --uid and --gid belong together".to_owned()),
    };
    Ok(plan)
}

/// What was just mounted is mounted read-only at once.
fn close(steps: &mut Vec<Step>, path: PathBuf) {
    match steps.last_mut() {
        Some(Step::Memory { at, read_only, .. }) if *at == path => *read_only = true,
        _ => steps.push(Step::ReadOnly { at: path }),
    }
}

fn known<'a>(word: &str, value: &'a OsStr) -> Result<&'a str, String> {
    value.to_str().ok_or_else(|| format!("{word}: not text"))
}

fn number(word: &str, value: &OsStr, base: u32) -> Result<u32, String> {
    let text = known(word, value)?;
    u32::from_str_radix(text, base).map_err(|error| format!("{word} {text}: {error}"))
}

/// An absolute path without steps upwards.
fn inside(word: &str, value: &OsStr) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    let upwards = path
        .components()
        .any(|c| c == std::path::Component::ParentDir);
    if !path.is_absolute() || upwards {
        return Err(format!("{word} {}: not an absolute path", path.display()));
    }
    Ok(path)
}

fn capability(name: &str) -> Result<u32, String> {
    let found = CAPABILITIES.iter().find(|(known, _)| *known == name);
    let (_, number) = found.ok_or_else(|| format!("--cap-add {name}: not known"))?;
    Ok(*number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "--unshare-pid --unshare-net --unshare-ipc --unshare-uts \
        --unshare-cgroup-try --hostname sandbox --as-pid-1 --die-with-parent --new-session";

    fn plan(more: &str) -> Result<Plan, String> {
        let line = format!("{HEAD} {more}");
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        read(&words)
    }

    #[test]
    fn a_plan_is_read_in_its_order() {
        let read = plan(
            "--cap-drop ALL --cap-add CAP_KILL --ro-bind /usr /usr --symlink usr/bin /bin \
             --perms 0700 --dir /run --tmpfs /x --remount-ro /x --proc /proc --dev /dev \
             --perms 1777 --size 65536 --tmpfs /dev/shm --bind /s/1/tmp /tmp -- helper label",
        )
        .unwrap();
        assert_eq!(read.label, "label");
        assert_eq!(
            (read.hostname.as_str(), read.ids, read.capabilities),
            ("sandbox", None, vec![5])
        );
        let at = PathBuf::from;
        assert_eq!(
            read.steps,
            [
                Step::Bind {
                    from: at("/usr"),
                    at: at("/usr"),
                    read_only: true,
                    optional: false
                },
                Step::Link {
                    target: at("usr/bin"),
                    at: at("/bin")
                },
                Step::Directory {
                    at: at("/run"),
                    mode: 0o700
                },
                Step::Memory {
                    at: at("/x"),
                    mode: 0o755,
                    size: None,
                    read_only: true
                },
                Step::Processes { at: at("/proc") },
                Step::Devices { at: at("/dev") },
                Step::Memory {
                    at: at("/dev/shm"),
                    mode: 0o1777,
                    size: Some(65_536),
                    read_only: false
                },
                Step::Bind {
                    from: at("/s/1/tmp"),
                    at: at("/tmp"),
                    read_only: false,
                    optional: false
                },
            ]
        );
        let users = plan("--unshare-user --uid 1000 --gid 1001 --disable-userns --").unwrap();
        assert_eq!((users.ids, users.no_more_users), (Some((1000, 1001)), true));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (words, why) in [
            ("--share-net --", "unknown word --share-net"),
            ("--dev-bind / / --", "unknown word --dev-bind"),
            ("--ro-bind /usr", "lacks its value"),
            ("--ro-bind usr /usr --", "not an absolute path"),
            ("--bind /a/../etc /x --", "not an absolute path"),
            ("--cap-add CAP_SYS_ADMIN --", "not known"),
            ("--cap-drop CAP_KILL --", "only ALL"),
            ("--uid 1000 --", "belong together"),
            ("--perms 9 --dir /x --", "--perms 9"),
            ("--size 1 --proc /proc --", "no size"),
            ("--chdir /tmp --", "only /"),
            ("", "no end"),
        ] {
            let refused = plan(words).unwrap_err();
            assert!(refused.contains(why), "{words}: {refused}");
        }
        let less: Vec<OsString> = HEAD
            .split_whitespace()
            .filter(|word| *word != "--unshare-net")
            .chain(["--"])
            .map(OsString::from)
            .collect();
        assert_eq!(read(&less), Err("--unshare-net is missing".to_owned()));
    }
}
