//! Whose a container is: a process, named so that a dead one is known as dead.

use crate::private::start_of;
use gametape_schemas::Digest;

/// The label that holds the owner; every container and volume of ours has it.
pub const LABEL: &str = "gametape.owner";
/// The label that holds the run.
pub const RUN: &str = "gametape.run";
/// The label that holds the attempt.
pub const ATTEMPT: &str = "gametape.attempt";

/// A process for good: `machine.boot.namespace.pid.start`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Several machines may share one engine.
    machine: String,
    boot: String,
    /// A pid says nothing in another namespace of pids.
    namespace: String,
    pid: u32,
    start: u64,
}

/// What can be said of another owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It may be at work.
    Alive,
    /// It is dead: what it left is nobody's.
    Dead,
    /// It cannot be seen from here.
    Unknown,
}

impl Owner {
    /// This process.
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let machine = match read("/etc/machine-id") {
            id if id.trim().is_empty() => read("/proc/sys/kernel/hostname"),
            id => id,
        };
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let pid = std::process::id();
        Self {
            machine: short(&machine),
            boot: short(&read("/proc/sys/kernel/random/boot_id")),
            namespace: short(&namespace.to_string_lossy()),
            pid,
            start: start_of(pid).unwrap_or(0),
        }
    }

    /// The value of the label.
    pub fn label(&self) -> String {
        let Self {
            machine,
            boot,
            namespace,
            pid,
            start,
        } = self;
        format!("{machine}.{boot}.{namespace}.{pid}.{start}")
    }

    /// The name of its container of that number: known before there is one.
    pub fn container(&self, number: u64) -> String {
        format!("gametape-{}-{number}", self.label())
    }

    /// Reads a label.
    pub fn parse(label: &str) -> Option<Self> {
        let parts: Vec<&str> = label.split('.').collect();
        let [machine, boot, namespace, pid, start] = parts.as_slice() else {
            return None;
        };
        Some(Self {
            machine: (*machine).to_owned(),
            boot: (*boot).to_owned(),
            namespace: (*namespace).to_owned(),
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        })
    }

    /// What `self` can say of `other`. `start_of` gives the start time of a process that
    /// lives. Pure.
    pub fn fate(&self, other: &Self, start_of: impl Fn(u32) -> Option<u64>) -> Fate {
        if other.machine != self.machine {
            Fate::Unknown
        } else if other.boot != self.boot {
            Fate::Dead
        } else if other.namespace != self.namespace {
            Fate::Unknown
        } else if start_of(other.pid) == Some(other.start) {
            Fate::Alive
        } else {
            Fate::Dead
        }
    }

    /// The same, of a process on this machine.
    pub fn fate_now(&self, other: &Self) -> Fate {
        self.fate(other, start_of)
    }
}

fn short(text: &str) -> String {
    let digest = Digest::of_bytes(text.trim().as_bytes());
    digest.0.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_reads_back_and_fits_a_name() {
        let this = Owner::this();
        assert_eq!(Owner::parse(&this.label()), Some(this.clone()));
        assert_eq!(this.fate_now(&this), Fate::Alive);
        let name = this.container(7);
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        assert!(name.chars().all(fits) && name.len() < 128, "{name}");
        assert_eq!(Owner::parse("somebody"), None);
    }

    #[test]
    fn only_the_dead_are_dead() {
        let this = Owner::parse("m.b.n.10.5").unwrap();
        let fate =
            |label: &str, start: Option<u64>| this.fate(&Owner::parse(label).unwrap(), |_| start);
        assert_eq!(fate("m.b.n.11.7", Some(7)), Fate::Alive);
        assert_eq!(fate("m.b.n.11.7", None), Fate::Dead);
        assert_eq!(fate("m.b.n.11.7", Some(8)), Fate::Dead, "a pid used again");
        assert_eq!(fate("m.c.n.11.7", Some(7)), Fate::Dead, "another boot");
        assert_eq!(fate("m.b.o.11.7", None), Fate::Unknown, "another namespace");
        assert_eq!(fate("x.c.n.11.7", None), Fate::Unknown, "another machine");
    }
}
