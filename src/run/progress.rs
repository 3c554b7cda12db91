//! What the person sees while the loop works: on a terminal a bar with the time left,
//! elsewhere (a log file, CI) a line every tenth of a phase, at most one in five seconds.

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Progress of one phase.
pub struct Phase {
    name: String,
    total: u64,
    done: u64,
    /// What an earlier process did of it.
    before: u64,
    note: String,
    bar: Option<ProgressBar>,
    started: Instant,
    /// Since when this process does its part: what is done is measured from here.
    at_work: Instant,
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
                "{prefix:>28} {bar:30} {pos}/{len} {elapsed_precise} {msg}",
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
        let now = Instant::now();
        Self {
            name,
            total,
            done: 0,
            before: 0,
            note: String::new(),
            bar,
            started: now,
            at_work: now,
            last_tenth: 0,
            last_line: now,
        }
    }

    /// The phase turned out to have another size.
    pub fn set_total(&mut self, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// An earlier process did `done` parts; now this one begins with the others.
    pub fn taken_up_at(&mut self, done: u64, note: impl Into<String>) {
        (self.before, self.done) = (done, done);
        self.at_work = Instant::now();
        self.last_tenth = self.tenth();
        self.note = note.into();
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(self.note.clone());
        }
    }

    /// `done` parts are done in all.
    pub fn at(&mut self, done: u64, note: impl Into<String>) {
        self.done = done;
        self.note = note.into();
        let left = time_left(self.before, done, self.total, self.at_work.elapsed());
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(match left {
                    Some(left) => format!("left {:#} {}", HumanDuration(left), self.note),
                    None => self.note.clone(),
                });
            }
            None => {
                let tenth = self.tenth();
                let quiet = self.last_line.elapsed().as_secs() < 5;
                if tenth > self.last_tenth && done < self.total && !quiet {
                    self.last_tenth = tenth;
                    self.last_line = Instant::now();
                    let seconds = self.started.elapsed().as_secs_f64();
                    let left = left.map_or(String::new(), |left| {
                        format!(", about {:.0} s left", left.as_secs_f64())
                    });
                    eprintln!(
                        "{}: {done}/{} after {seconds:.0} s{left} {}",
                        self.name, self.total, self.note
                    );
                }
            }
        }
    }

    fn tenth(&self) -> u64 {
        (self.done * 10).checked_div(self.total).unwrap_or(10)
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
        let before = match self.before {
            0 => String::new(),
            before => format!(" ({before} were done before)"),
        };
        eprintln!(
            "{}: {}/{}{before} in {seconds:.1} s {}",
            self.name, self.done, self.total, self.note
        );
    }
}

/// How long the rest takes at the pace of this process, which found `before` of `total`
/// parts done and brought them to `done` in the time `at_work`. Before it has done a part
/// itself it has no pace, whatever others did.
fn time_left(before: u64, done: u64, total: u64, at_work: Duration) -> Option<Duration> {
    let made = done.checked_sub(before).filter(|made| *made > 0)?;
    let rest = total.saturating_sub(done);
    Duration::try_from_secs_f64(at_work.as_secs_f64() * (rest as f64 / made as f64)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_time_left_follows_from_what_this_process_did() {
        assert_eq!(time_left(0, 10, 40, seconds(20)), Some(seconds(60)));
        // Of 90 parts 60 were there: five in ten seconds leave 25, two seconds each.
        assert_eq!(time_left(60, 65, 90, seconds(10)), Some(seconds(50)));
        assert_eq!(time_left(60, 90, 90, seconds(60)), Some(seconds(0)));
        // A total that turned out smaller.
        assert_eq!(time_left(0, 10, 8, seconds(20)), Some(seconds(0)));
    }

    #[test]
    fn without_a_part_of_its_own_no_time_is_told() {
        assert_eq!(time_left(0, 0, 90, seconds(30)), None);
        assert_eq!(time_left(60, 60, 90, seconds(30)), None);
        assert_eq!(time_left(60, 59, 90, seconds(30)), None);
        assert_eq!(time_left(0, 1, u64::MAX, Duration::MAX), None);
    }

    #[test]
    fn a_phase_that_is_taken_up_measures_from_there() {
        let mut phase = Phase::begin("training: first", 1);
        let began = phase.at_work;
        phase.set_total(90);
        phase.taken_up_at(60, "");
        assert_eq!((phase.before, phase.done, phase.last_tenth), (60, 60, 6));
        assert!(phase.at_work >= began);
        phase.inc("");
        assert_eq!((phase.before, phase.done), (60, 61));
    }
}
