//! The attacks of the table: what runs inside, and what must hold afterwards.

use crate::table::{Attack, DISK_MIB, FILE_MIB, INODES, Inside, Scene};
use crate::table_scripts::*;
use gametape_schemas::ResourceLimit::{Disk, FileSize, Memory, Processes, WallTime};
use gametape_schemas::message::{FileRead, FileWritten};

/// An attack that no limit ends.
const fn plain(name: &'static str, script: &'static str) -> Attack {
    Attack {
        name,
        inside: Inside::Script(script),
        ms: 60_000,
        limits: [None; 2],
        holds: |_| Ok(()),
    }
}

const fn calls(name: &'static str, script: &'static str) -> Attack {
    Attack {
        inside: Inside::Calls(script),
        ..plain(name, "")
    }
}

const fn words(name: &'static str, words: fn() -> Vec<String>) -> Attack {
    Attack {
        inside: Inside::Words(words),
        ..plain(name, "")
    }
}

const fn filling(name: &'static str, script: &'static str) -> Attack {
    Attack {
        limits: [Some(Disk); 2],
        holds: is_bounded,
        ..plain(name, script)
    }
}

pub const ATTACKS: &[Attack] = &[
    plain("history (`.git`), hidden tests", HISTORY),
    plain("network, outwards and to the host", NETWORK),
    plain("`/proc` of others", PROC),
    plain("`/etc/shadow`, files of the host", SECRETS),
    Attack {
        ms: 3_000,
        limits: [Some(Processes); 2],
        ..plain("fork bomb", FORKS)
    },
    Attack {
        limits: [Some(Memory); 2],
        ..plain("memory hog of several processes", MEMORY)
    },
    filling("disk filled below `/testbed`", FILL_TESTBED),
    filling("disk filled below `/tmp`", FILL_TMP),
    filling("files without end below `/testbed`", MANY_FILES),
    Attack {
        ms: 2_000,
        limits: [Some(WallTime); 2],
        holds: |scene| {
            let (kept, cut) = (scene.outcome.stdout.len(), scene.outcome.truncated_bytes);
            held(kept < 8_000 && cut > 1 << 20, scene)
        },
        ..words("output without end", || all(&["yes"]))
    },
    plain("daemons in sessions of their own", DAEMONS),
    Attack {
        holds: links_lead_nowhere,
        ..plain("links out, then read, write and diff", LINKS)
    },
    Attack {
        holds: |scene| held(!diff(scene)?.contains("root:"), scene),
        ..plain("hard links to the host's files", HARD_LINKS)
    },
    calls("ptrace of process 1", TRACE),
    calls("mounts", MOUNTS),
    calls("nested user namespaces", NAMESPACES),
    plain("signals to process 1, the parent, the host", SIGNALS),
    plain("files of another sandbox", NEIGHBOUR),
    Attack {
        limits: [Some(FileSize); 2],
        holds: big_file_is_cut,
        ..words("a sparse file of 1 GiB", || {
            all(&["truncate", "-s", "1G", "big"])
        })
    },
    Attack {
        limits: [Some(FileSize); 2],
        holds: big_file_is_cut,
        ..words("a real file of 1 GiB", || {
            all(&["dd", "if=/dev/zero", "of=big", "bs=1M", "count=1024"])
        })
    },
    Attack {
        holds: |scene| held(scene.outcome.exit_code == Some(126), scene),
        ..words("one word of 1 MiB", || {
            all(&["sh", "-c", &"x".repeat(1 << 20)])
        })
    },
    Attack {
        holds: |scene| held(scene.outcome.stdout == "10\n", scene),
        ..words("ten words of 100 kB", || {
            let word = "x".repeat(100_000);
            let mut all = all(&["sh", "-c", "echo $#", "sh"]);
            all.extend(vec![word; 10]);
            all
        })
    },
    Attack {
        holds: |scene| held(scene.outcome.stdout.contains('\u{fffd}'), scene),
        ..plain("output that is not UTF-8", BYTES)
    },
    Attack {
        holds: |scene| {
            let diff = diff(scene)?;
            let is_forged = diff.lines().any(|line| line.ends_with("+++ b/forged"));
            held(!is_forged && diff.contains("+++ b/good.py"), scene)
        },
        ..plain("names with line breaks, not UTF-8", NAMES)
    },
];

fn all(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn held(holds: bool, scene: &Scene<'_>) -> Result<(), String> {
    if holds {
        return Ok(());
    }
    Err(format!("{:?}", scene.outcome))
}

fn diff(scene: &Scene<'_>) -> Result<String, String> {
    scene.sandbox.diff().map_err(|failure| failure.to_string())
}

/// The script says how much it got: less than twice its room, for file systems count in
/// blocks.
fn is_bounded(scene: &Scene<'_>) -> Result<(), String> {
    let numbers = scene.outcome.stdout.split_whitespace();
    let numbers: Vec<u64> = numbers.filter_map(|word| word.parse().ok()).collect();
    let &[bytes, files] = numbers.as_slice() else {
        return held(false, scene);
    };
    let some = bytes > 0 || files > 0;
    held(some && bytes <= DISK_MIB << 20 && files <= INODES, scene)
}

fn big_file_is_cut(scene: &Scene<'_>) -> Result<(), String> {
    let size = crate::rooms::shell(scene.sandbox, "stat -c %s big 2>/dev/null || echo 0");
    let size: u64 = size.stdout.trim().parse().map_err(|e| format!("{e}"))?;
    held(size <= FILE_MIB << 20, scene)?;
    held(scene.outcome.exit_code != Some(0), scene)?;
    // Looking at the tree does not choke on what is there.
    held(diff(scene)?.len() < 1_000, scene)
}

fn links_lead_nowhere(scene: &Scene<'_>) -> Result<(), String> {
    let out = format!("root{}", scene.canary.display());
    for path in ["secret", "canary", "up/etc/passwd", &out] {
        let read = scene.sandbox.read(path).map_err(|e| e.to_string())?;
        if !matches!(read, FileRead::Refused(_)) {
            return Err(format!("{path} was read: {read:?}"));
        }
        let written = scene.sandbox.write(path, "evil");
        let written = written.map_err(|e| e.to_string())?;
        if !matches!(written, FileWritten::Refused(_)) {
            return Err(format!("{path} was written"));
        }
    }
    held(!diff(scene)?.contains("root:"), scene)
}
