//! Where this process may make groups: which hierarchies are mounted, and where in them
//! it is itself. Pure but for [`mounted`], which reads `/proc/self/mountinfo` and
//! `/proc/self/cgroup`.

use std::path::{Component, Path, PathBuf};

/// The two interfaces of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Version {
    /// One tree for all controllers.
    V2,
    /// A tree for each controller, or for a few.
    V1,
}

/// One mounted tree of groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hierarchy {
    pub version: Version,
    /// Of v1: what the tree controls. Empty for v2: each group says it by itself.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub top: PathBuf,
    /// The group of this process in it, or `top` where that cannot be seen.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Groups to try, the nearest first: the own one, and what is around it.
    pub fn candidates(&self) -> impl Iterator<Item = &Path> {
        self.own
            .ancestors()
            .take_while(|path| path.starts_with(&self.top))
    }
}

/// The hierarchies of this process.
pub(crate) fn mounted() -> Vec<Hierarchy> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// Every mounted hierarchy, v2 first.
pub(crate) fn hierarchies(mountinfo: &str, cgroup: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mountinfo.lines().filter_map(mount) {
        let (version, controllers) = match mount.kind {
            "cgroup2" => (Version::V2, Vec::new()),
            "cgroup" => (Version::V1, controllers(mount.options)),
            _ => continue,
        };
        let known = found
            .iter()
            .any(|h| h.version == version && h.controllers == controllers);
        // A tree that is mounted twice, and one that only names (systemd's).
        if known || (version == Version::V1 && controllers.is_empty()) {
            continue;
        }
        let top = PathBuf::from(unescape(mount.point));
        let own = own_path(cgroup, &controllers)
            .and_then(|path| inside(path, &unescape(mount.root)))
            .filter(|path| !path.as_os_str().is_empty())
            .map_or_else(|| top.clone(), |path| top.join(path));
        found.push(Hierarchy {
            version,
            controllers,
            top,
            own,
        });
    }
    found.sort_by_key(|h| h.version);
    found
}

struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - cgroup cgroup rw,memory`
fn mount(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let kind = right.next()?;
    let options = right.nth(1)?;
    Some(Mount {
        root,
        point,
        kind,
        options,
    })
}

fn controllers(options: &str) -> Vec<String> {
    let known = ["memory", "pids", "cpu", "cpuacct", "freezer"];
    options
        .split(',')
        .filter(|option| known.contains(option))
        .map(str::to_owned)
        .collect()
}

/// `4:memory:/a/b` of v1, `0::/a/b` of v2.
fn own_path<'a>(cgroup: &'a str, controllers: &[String]) -> Option<&'a str> {
    cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match controllers.first() {
            Some(first) => names.split(',').any(|name| name == first),
            None => names.is_empty(),
        };
        ours.then_some(path)
    })
}

/// `path` below the root of a mount; `None` where the mount does not show it, as in
/// containers without a namespace of groups.
fn inside(path: &str, root: &str) -> Option<PathBuf> {
    let rest = Path::new(path).strip_prefix(root).ok()?;
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    rest.components().all(plain).then(|| rest.to_owned())
}

/// Spaces and the like are octal in mountinfo.
fn unescape(word: &str) -> String {
    word.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 1 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
27 25 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
29 25 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
30 25 0:24 / /mnt/again rw,relatime - cgroup cgroup rw,memory
";
    const HYBRID_OWN: &str =
        "9:name=systemd:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/\n0::/user.slice/x.scope\n";

    #[test]
    fn every_hierarchy_is_found_once_and_ones_own_place_in_it() {
        let found = hierarchies(HYBRID, HYBRID_OWN);
        let own: Vec<&str> = found.iter().filter_map(|h| h.own.to_str()).collect();
        assert_eq!(
            own,
            [
                "/sys/fs/cgroup/unified/user.slice/x.scope",
                "/sys/fs/cgroup/cpu",
                "/sys/fs/cgroup/memory/jobs/7"
            ]
        );
        let nearest: Vec<_> = found.last().unwrap().candidates().collect();
        assert_eq!(
            nearest,
            [
                "/sys/fs/cgroup/memory/jobs/7",
                "/sys/fs/cgroup/memory/jobs",
                "/sys/fs/cgroup/memory"
            ]
            .map(Path::new)
        );
    }

    #[test]
    fn a_container_sees_its_own_part_of_the_tree() {
        let info = "9 8 0:3 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let own = |cgroup: &str| hierarchies(info, cgroup).remove(0).own;
        assert_eq!(own("0::/docker/ab/x\n"), Path::new("/sys/fs/cgroup/x"));
        assert_eq!(own("0::/elsewhere\n"), Path::new("/sys/fs/cgroup"));
        assert_eq!(own("0::/docker/ab/../cd\n"), Path::new("/sys/fs/cgroup"));
        assert_eq!(own(""), Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn machines_without_groups_and_odd_lines_have_none() {
        assert!(hierarchies("", "").is_empty());
        assert!(hierarchies("1 2 3\n- cgroup2\n1 1 1 / / rw - ext4 /dev/a rw\n", "x").is_empty());
        let spaced = "9 8 0:3 / /a\\040b rw - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchies(spaced, "")[0].top, Path::new("/a b"));
    }
}
