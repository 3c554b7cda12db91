//! Slots: groups that are made once and used by one sandbox after another.

use super::group::Group;
use super::usage::{Counters, GroupLimits, GroupUsage};
use super::{Part, kill};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Cached pages that a slot may keep for its next user, bytes: giving them up costs
/// milliseconds, and the kernel does so by itself when the limit is reached.
const RESIDUE: u64 = 8 << 20;
/// Names that may be taken by leftovers before something is wrong.
const TRIES: usize = 1000;

/// Slots of one owner. Copies share them. The groups go when the last copy and the last
/// slot are dropped.
#[derive(Clone, Debug)]
pub struct Pool {
    home: Arc<Home>,
}

#[derive(Debug)]
struct Home {
    parts: Arc<[Part]>,
    owner: String,
    next: AtomicU64,
    idle: Mutex<Vec<Vec<Member>>>,
}

/// A group of a slot.
#[derive(Debug)]
struct Member {
    part: Part,
    group: Group,
    /// Limits that its files hold, as far as it keeps any.
    written: Option<GroupLimits>,
}

impl Pool {
    pub(super) fn new(parts: Arc<[Part]>, owner: &str) -> Self {
        let home = Home {
            parts,
            owner: owner.to_owned(),
            next: AtomicU64::new(0),
            idle: Mutex::default(),
        };
        Self {
            home: Arc::new(home),
        }
    }

    /// An empty slot with these limits, used before if there is one. Where this machine
    /// has no groups it limits and counts nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take(&self, limits: &GroupLimits) -> io::Result<Slot> {
        let idle = self.home.idle().pop();
        match idle.map(|members| self.ready(members, limits)) {
            // Somebody removed its directories: others are made.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Some(done) => return done,
            None => {}
        }
        self.ready(self.home.make()?, limits)
    }

    fn ready(&self, members: Vec<Member>, limits: &GroupLimits) -> io::Result<Slot> {
        let mut slot = Slot {
            home: Arc::clone(&self.home),
            members,
            base: Counters::default(),
        };
        for member in &mut slot.members {
            if member.written != Some(*limits) {
                // Forgotten first: half of them may be written when it fails.
                member.written = None;
                member.part.set(&member.group, limits)?;
                member.written = Some(*limits);
            }
        }
        let counters = slot.members.iter_mut().map(|member| {
            // Only now: pages are still given back a while after a slot is empty.
            let set_back = member.part.reset(&mut member.group);
            let now = member.part.read(&member.group);
            Counters {
                memory_now: if set_back {
                    now.memory_peak
                } else {
                    now.memory_now
                },
                ..now
            }
        });
        slot.base = counters.fold(Counters::default(), Counters::and);
        Ok(slot)
    }

    /// Slots that wait for a user.
    pub fn idle(&self) -> usize {
        self.home.idle().len()
    }
}

impl Home {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Member>>> {
        // Nothing panics while it is held; what is in it is whole in any case.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> io::Result<Vec<Member>> {
        for _ in 0..TRIES {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = super::name_of(&self.owner, number);
            if let Some(members) = self.make_named(&name)? {
                return Ok(members);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("the names of groups of `{}` are all taken", self.owner),
        ))
    }

    /// `None` when one of the names is taken.
    fn make_named(&self, name: &str) -> io::Result<Option<Vec<Member>>> {
        let mut members = Vec::with_capacity(self.parts.len());
        for part in self.parts.iter() {
            match Group::make(&part.parent, name) {
                Ok(Some(group)) => members.push(Member {
                    part: part.clone(),
                    group,
                    written: None,
                }),
                other => {
                    remove(members);
                    return other.map(|_| None);
                }
            }
        }
        Ok(Some(members))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle());
        idle.into_iter().for_each(remove);
    }
}

fn remove(members: Vec<Member>) {
    for member in members {
        let path = member.group.path().to_owned();
        if let Err(error) = member.group.remove() {
            // A later start sweeps it.
            tracing::warn!(path = %path.display(), %error, "a control group stays");
        }
    }
}

/// Groups for one sandbox. Dropping it kills what is in it, waits until all of that is
/// gone (milliseconds; seconds at worst) and gives it back.
#[derive(Debug)]
pub struct Slot {
    home: Arc<Home>,
    members: Vec<Member>,
    base: Counters,
}

impl Slot {
    /// Puts a process with all of its threads under the limits. Children that it has
    /// already stay outside; those to come are inside.
    ///
    /// # Errors
    /// The kernel's: the process is gone.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.members
            .iter()
            .try_for_each(|member| member.group.add(pid))
    }

    /// The same for a process and all that descends from it, also what comes up
    /// meanwhile. Children of parents that have ended already are not found.
    ///
    /// # Errors
    /// The kernel's: the first process is gone.
    pub fn add_family(&self, pid: u32) -> io::Result<()> {
        self.add(pid)?;
        let mut inside = BTreeSet::from([pid]);
        let mut waiting = vec![pid];
        while let Some(parent) = waiting.pop() {
            // A child of somebody who is inside is found here, or born inside.
            for child in children(parent) {
                if inside.insert(child) {
                    match self.add(child) {
                        // It has ended: its own children have, too, or are another's.
                        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                        added => {
                            added?;
                            waiting.push(child);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Its directories, one in each hierarchy.
    pub fn paths(&self) -> Vec<&Path> {
        let groups = self.members.iter().map(|member| &member.group);
        groups.map(Group::path).collect()
    }

    /// What was used since the slot was taken.
    pub fn usage(&self) -> GroupUsage {
        self.counters().since(&self.base)
    }

    /// Kills everything in it and waits until it is gone. It can be used on.
    ///
    /// # Errors
    /// `TimedOut` when something does not die; the kernel's.
    pub fn kill(&mut self) -> io::Result<()> {
        if empty(&self.members)? {
            let limits = self.members.iter().find_map(|member| member.written);
            for member in &mut self.members {
                member.written = None;
                member
                    .part
                    .set(&member.group, &limits.unwrap_or_default())?;
                member.written = limits;
            }
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.members
            .iter()
            .map(|member| member.part.read(&member.group))
            .fold(Counters::default(), Counters::and)
    }
}

/// Children of all threads of a process, by `/proc`.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

impl Drop for Slot {
    fn drop(&mut self) {
        let members = std::mem::take(&mut self.members);
        match cleaned(members) {
            Ok(Some(members)) => self.home.idle().push(members),
            Ok(None) => {}
            // Its directories stay and nobody gets them; a later start tries again.
            Err(error) => tracing::warn!(%error, "a control group is not used again"),
        }
    }
}

fn empty(members: &[Member]) -> io::Result<bool> {
    let groups: Vec<&Group> = members.iter().map(|member| &member.group).collect();
    kill::empty(&groups)
}

/// Empties a slot for its next user. `None` when a name got lost, and the rest
/// is removed.
fn cleaned(mut members: Vec<Member>) -> io::Result<Option<Vec<Member>>> {
    let limits_changed = empty(&members)?;
    let mut whole = Vec::with_capacity(members.len());
    for mut member in members.drain(..) {
        if limits_changed {
            member.written = None;
        }
        if member.part.is_made_anew() {
            member = match made_anew(member)? {
                Some(member) => member,
                None => {
                    remove(whole);
                    return Ok(None);
                }
            };
        }
        let lying = member.part.read(&member.group).memory_now;
        if let Some(bytes) = lying.filter(|bytes| *bytes > RESIDUE) {
            member.part.reclaim(&member.group, bytes);
        }
        whole.push(member);
    }
    Ok(Some(whole))
}

/// The peak of processes cannot be set back, and zombies of others count until they are
/// reaped. A fresh directory costs a hundredth of a millisecond.
fn made_anew(member: Member) -> io::Result<Option<Member>> {
    let Member { part, group, .. } = member;
    let path = group.path().to_owned();
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(None);
    };
    group.remove()?;
    Ok(Group::make(&part.parent, name)?.map(|group| Member {
        part,
        group,
        written: None,
    }))
}
