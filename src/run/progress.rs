//! What the person sees while the loop works: on a terminal a bar with the time left,
//! elsewhere (a log file, CI) a line every tenth of a phase, at most one in five seconds.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Instant;

/// Progress of one phase.
pub struct Phase {
    name: String,
    total: u64,
    done: u64,
    note: String,
    bar: Option<ProgressBar>,
    started: Instant,
    last_tenth: u64,
    last_line: Instant,
}

impl Phase {
    /// Begins a phase of `total` parts.
    pub fn begin(name: impl Into<String>, total: u64) -> Self {
        let name = name.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            // The template is fixed text; a mistake in it falls back to the default bar.
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix:>28} {bar:30} {pos}/{len} {elapsed_precise} left {eta} {msg}",
            ) {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(std::time::Duration::from_millis(500));
            bar
        });
        if bar.is_none() {
            eprintln!("{name}: {total} to do");
        }
        Self {
            name,
            total,
            done: 0,
            note: String::new(),
            bar,
            started: Instant::now(),
            last_tenth: 0,
            last_line: Instant::now(),
        }
    }

    /// The phase turned out to have another size.
    pub fn set_total(&mut self, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// `done` parts are done in all.
    pub fn at(&mut self, done: u64, note: impl Into<String>) {
        self.done = done;
        self.note = note.into();
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(self.note.clone());
            }
            None => {
                let tenth = (done * 10).checked_div(self.total).unwrap_or(10);
                let quiet = self.last_line.elapsed().as_secs() < 5;
                if tenth > self.last_tenth && done < self.total && !quiet {
                    self.last_tenth = tenth;
                    self.last_line = Instant::now();
                    let seconds = self.started.elapsed().as_secs_f64();
                    let left = seconds / done.max(1) as f64 * (self.total - done) as f64;
                    eprintln!(
                        "{}: {done}/{} after {seconds:.0} s, about {left:.0} s left {}",
                        self.name, self.total, self.note
                    );
                }
            }
        }
    }

    /// What is being done, without progress in parts.
    pub fn say(&mut self, note: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(note.into());
        }
    }

    /// One more part is done.
    pub fn inc(&mut self, note: impl Into<String>) {
        self.at(self.done + 1, note);
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!(
            "{}: {}/{} in {seconds:.1} s {}",
            self.name, self.done, self.total, self.note
        );
    }
}
