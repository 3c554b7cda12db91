//! A thread that lives as long as its sandbox. The kernel ties three things to a thread:
//! bubblewrap's life (it dies with the thread that started it), a private mount
//! namespace and a current directory. So a sandbox's layers are mounted where nobody
//! else sees them, and when this process ends, however it ends, they are gone.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::io;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;

type Work = Box<dyn FnOnce() + Send>;

/// The thread. Dropping it ends the thread, once what it does is done.
#[derive(Debug)]
pub struct Warden {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

/// Its stack: it only makes system calls.
const STACK: usize = 256 << 10;

impl Warden {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(number: u64) -> io::Result<Self> {
        let (work, orders) = channel::<Work>();
        let thread = std::thread::Builder::new()
            .name(format!("sandbox-{number}"))
            .stack_size(STACK)
            .spawn(move || {
                for order in orders {
                    order();
                }
            })?;
        Ok(Self {
            work: Some(work),
            thread: Some(thread),
        })
    }

    /// Does something on the thread, and waits for it.
    ///
    /// # Errors
    /// When the thread has died of an earlier panic.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = sync_channel(1);
        let gone = || io::Error::other("the sandbox's thread has died");
        let order: Work = Box::new(move || {
            // Nobody waits any more: as good.
            let _ = answer.send(work());
        });
        let sender = self.work.as_ref().ok_or_else(gone)?;
        sender.send(order).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // A panic was told to whoever waited for it.
            let _ = thread.join();
        }
    }
}

/// Gives the calling thread mounts of its own. What the host mounts later still shows,
/// what is mounted here shows nowhere else.
///
/// # Errors
/// `EPERM` without the right to do so.
pub fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_on_one_thread_and_a_panic_is_told() {
        let warden = Warden::start(3).unwrap();
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(warden.run(name).unwrap().as_deref(), Some("sandbox-3"));
        assert!(warden.run(|| -> () { panic!("on purpose") }).is_err());
        assert!(warden.run(|| ()).is_err());
    }

    #[test]
    fn its_mounts_are_its_own() {
        let warden = Warden::start(4).unwrap();
        if let Err(error) = warden.run(own_mounts).unwrap() {
            eprintln!("SKIPPED: its_mounts_are_its_own: {error}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_owned();
        let none: Option<&'static str> = None;
        let mounted = warden.run(move || {
            mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), none)?;
            std::fs::write(place.join("inside"), "")
        });
        mounted.unwrap().unwrap();
        assert!(!dir.path().join("inside").exists());
    }
}
