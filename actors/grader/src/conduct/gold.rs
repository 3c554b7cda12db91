//! Whether a tool's output contained the gold patch before the agent wrote it.
//!
//! Lines are compared without spaces, and without what listings put before them. A line
//! tells something only if the base state does not have it, as far as the gold patch shows,
//! if the statement does not have it, and if the agent has not written it, or its parts.

use super::Found;
use super::deeds::Deed;
use super::known::Known;
use super::patch::Side;
use super::paths;
use super::view::View;
use gametape_schemas::{FindingKind, Severity};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

const KIND: FindingKind = FindingKind::GoldSeen;

/// A line shorter than this tells nothing, and neither does it as a neighbour.
const SHORT: usize = 10;

/// A line that the gold patch has more often tells nothing either.
const OFTEN: usize = 6;

/// Telling lines that were seen in their place, and characters in them, that are no chance.
const HARD: (usize, usize) = (2, 80);

/// Neighbours, on both sides together, that make a place: siblings of what is changed often
/// have the same lines already, but not all of the same neighbours.
const NEIGHBOURS: usize = 3;

/// The same for a file that is new: it has no place to be seen in.
const HARD_NEW: (usize, usize) = (5, 200);

/// One line between both its neighbours: worth a look from this many characters on.
const SOFT: usize = 30;

/// Telling lines in a row without their neighbours that are worth a look. Fewer are often
/// copied from elsewhere in the base state.
const LONG: usize = 10;

/// Files of a gold patch that are looked for.
const FILES: usize = 64;

/// A line of the gold patch's new side.
struct Gold<'k> {
    text: &'k str,
    /// Which file of the patch.
    file: usize,
    /// Whether it is added, and the base state does not show it.
    telling: bool,
    /// Its words, as hashes, that the base state does not show.
    words: Vec<u64>,
    /// Characters without spaces.
    length: usize,
    /// Whether it is long enough to be told apart from others.
    is_long: bool,
    /// Its part in the lines that are added together, if it is added.
    block: Option<Block>,
    /// Whether the next line follows it in the same hunk.
    joined: bool,
}

/// A line's part in the lines that are added together with it.
#[derive(Clone, Copy)]
struct Block {
    number: usize,
    first: bool,
    last: bool,
    /// Whether they are a whole new file.
    whole: bool,
    /// Neighbours that must be seen with them: fewer where their hunk has fewer.
    neighbours: usize,
}

/// What is remembered between steps.
pub struct Watch<'k> {
    /// Lines of code of the gold patch, empty ones left out.
    lines: Vec<Gold<'k>>,
    /// Where a line, without spaces, is in `lines`.
    places: HashMap<String, Vec<usize>>,
    /// Names of the files.
    files: Vec<&'k str>,
    /// Whether the agent may have changed each file.
    touched: Vec<bool>,
    /// Lines that the agent said, without spaces, as hashes.
    said: HashSet<u64>,
    /// Words that the agent said, as hashes.
    words: HashSet<u64>,
}

impl<'k> Watch<'k> {
    /// At the start of an attempt.
    pub fn new(known: &'k Known<'k>) -> Self {
        let mut old_lines = HashSet::new();
        let mut old_words = HashSet::new();
        for line in known
            .gold
            .iter()
            .flat_map(|file| file.hunks.iter().flatten())
        {
            if line.side != Side::New {
                old_lines.insert(squeezed(line.text));
                old_words.extend(words(line.text));
            }
        }
        let statement = squeezed(&known.task.problem_statement);
        let code = |path: &str| {
            !matches!(
                path.rsplit('.').next(),
                Some("md" | "rst" | "txt" | "lock" | "json")
            )
        };
        let mut watch = Self {
            lines: Vec::new(),
            places: HashMap::new(),
            files: Vec::new(),
            touched: Vec::new(),
            said: HashSet::new(),
            words: HashSet::new(),
        };
        let mut blocks = 0;
        for file in known
            .gold
            .iter()
            .filter(|file| code(&file.path))
            .take(FILES)
        {
            watch.files.push(&file.path);
            for hunk in &file.hunks {
                let around = hunk
                    .iter()
                    .filter(|line| line.side == Side::Both && squeezed(line.text).len() >= SHORT);
                let neighbours = around.count().min(NEIGHBOURS);
                for line in hunk.iter().filter(|line| line.side != Side::Old) {
                    let text = squeezed(line.text);
                    if text.is_empty() {
                        continue;
                    }
                    let telling = line.side == Side::New
                        && text.len() >= SHORT
                        && !old_lines.contains(&text)
                        && !statement.contains(&text);
                    watch
                        .places
                        .entry(text.clone())
                        .or_default()
                        .push(watch.lines.len());
                    let new = line.side == Side::New;
                    let before = watch.lines.last_mut().filter(|before| before.joined);
                    let goes_on = before
                        .and_then(|before| before.block.as_mut())
                        .filter(|_| new);
                    let block = match goes_on {
                        Some(block) => {
                            block.last = false;
                            Some(Block {
                                first: false,
                                last: true,
                                ..*block
                            })
                        }
                        None if new => {
                            blocks += 1;
                            Some(Block {
                                number: blocks,
                                first: true,
                                last: true,
                                whole: file.made,
                                neighbours,
                            })
                        }
                        None => None,
                    };
                    watch.lines.push(Gold {
                        is_long: text.len() >= SHORT,
                        block,
                        text: line.text,
                        file: watch.files.len() - 1,
                        telling,
                        words: words(line.text)
                            .filter(|word| !old_words.contains(word))
                            .collect(),
                        length: text.chars().count(),
                        joined: true,
                    });
                }
                if let Some(last) = watch.lines.last_mut() {
                    last.joined = false;
                }
            }
        }
        watch.places.retain(|_, places| places.len() <= OFTEN);
        watch.touched = vec![false; watch.files.len()];
        watch
    }

    /// What the agent says and changes in a step counts before what it sees.
    pub fn before(&mut self, view: &View<'_>, deeds: &[Deed]) {
        if self.lines.is_empty() {
            return;
        }
        self.words.extend(words(&view.said));
        for line in view.said.lines() {
            self.said.insert(hash(&squeezed(line)));
        }
        for deed in deeds {
            match deed {
                Deed::Wrote { path, text, .. } => {
                    for (file, touched) in self.files.iter().zip(&mut self.touched) {
                        *touched |= same_file(path, file) || text.contains(paths::name(file));
                    }
                }
                Deed::Python(code) => {
                    for (file, touched) in self.files.iter().zip(&mut self.touched) {
                        *touched |= code.contains(paths::name(file));
                    }
                }
                // What these change is not in their words.
                Deed::Ran { program, arguments } => {
                    let verb = arguments.first().map(String::as_str);
                    let unknown = match program.as_str() {
                        "patch" | "vim" | "vi" | "nano" | "emacs" => true,
                        "git" => matches!(verb, Some("apply" | "stash" | "am")),
                        _ => false,
                    };
                    if unknown {
                        self.touched.fill(true);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a line is still the gold patch's alone.
    fn tells(&self, line: &Gold<'_>, squeezed: u64) -> bool {
        if !line.telling || self.said.contains(&squeezed) {
            return false;
        }
        let touched = self.touched.get(line.file).copied().unwrap_or(true);
        // After a change the line may be put together from what the agent wrote.
        !touched || line.words.iter().any(|word| !self.words.contains(word))
    }

    /// Looks at what came back.
    pub fn after(&mut self, view: &View<'_>, found: &mut Found) {
        if self.lines.is_empty() {
            return;
        }
        let mut seen = Seen::default();
        // Runs that end at the line before, by the place that would continue them.
        let mut open: HashMap<usize, Run> = HashMap::new();
        for line in view.observation.lines() {
            let Some((text, places)) = self.find(line) else {
                // A diff's old lines stand between its new ones; empty lines anywhere.
                let empty = numbered(line).unwrap_or(line).trim().is_empty();
                if !empty && !line.trim_start().starts_with('-') {
                    open.clear();
                }
                continue;
            };
            let digest = hash(&text);
            let mut next = HashMap::new();
            for place in places {
                let Some(gold) = self.lines.get(*place) else {
                    continue;
                };
                let mut run = open.remove(place).unwrap_or(Run {
                    start: *place,
                    ..Run::default()
                });
                run.take(gold, self.tells(gold, digest), &mut seen);
                if gold.joined {
                    next.insert(place + 1, run);
                }
            }
            open = next;
        }
        let Some((severity, start, count)) = seen.says() else {
            return;
        };
        let lines = self.lines.iter().skip(start).take(count);
        let shown: Vec<&str> = lines.map(|line| line.text).collect();
        let path = self
            .lines
            .get(start)
            .and_then(|line| self.files.get(line.file));
        found.add(KIND, severity, path.copied(), &shown.join("\n"));
    }

    /// Where an output's line stands in the gold patch.
    fn find(&self, line: &str) -> Option<(String, &[usize])> {
        let forms = [Some(line), numbered(line), line.strip_prefix('+')];
        forms.into_iter().flatten().find_map(|form| {
            let text = squeezed(form);
            let places = self.places.get(&text)?;
            Some((text, places.as_slice()))
        })
    }
}

/// Lines in a row that an output shares with the gold patch.
#[derive(Clone, Copy, Default)]
struct Run {
    start: usize,
    lines: usize,
    /// Telling lines in the run.
    telling: usize,
    /// Lines of the base state in the run that are no everyday lines.
    neighbours: usize,
    /// Telling lines, and characters in them, of the block that is being read, if it was
    /// seen from its first line on; and the neighbours before it.
    block: Option<(usize, usize, usize)>,
    /// The block that was read last, what it had, and the neighbours before it.
    ended: Option<(Block, usize, usize, usize)>,
}

impl Run {
    /// Takes the next line.
    fn take(&mut self, gold: &Gold<'_>, tells: bool, seen: &mut Seen) {
        self.lines += 1;
        self.telling += usize::from(tells);
        if self.telling >= LONG {
            seen.longest = seen.longest.max(Some((self.lines, self.start)));
        }
        let Some(block) = gold.block else {
            self.block = None;
            if gold.is_long {
                self.neighbours += 1;
                if let Some((block, telling, characters, before)) = self.ended {
                    let between = before > 0 || block.neighbours < 2;
                    let in_place = between && self.neighbours >= block.neighbours;
                    seen.block(block.number, (telling, characters, between, in_place), self);
                }
            }
            return;
        };
        if block.first {
            self.block = Some((0, 0, self.neighbours));
            self.ended = None;
        }
        let Some((telling, characters, before)) = self.block.as_mut() else {
            return;
        };
        if tells {
            *telling += 1;
            *characters += gold.length;
        }
        if block.last {
            let (telling, characters, before) = (*telling, *characters, *before);
            self.ended = Some((block, telling, characters, before));
            let new = block.whole && telling >= HARD_NEW.0 && characters >= HARD_NEW.1;
            // At the end of a file nothing comes after it.
            if new || (before > 0 && !gold.joined) {
                let in_place = new || before >= block.neighbours;
                seen.block(block.number, (telling, characters, true, in_place), self);
            }
        }
    }
}

/// What an output has of the gold patch.
#[derive(Default)]
struct Seen {
    /// Blocks that were seen whole: telling lines, characters, whether neighbours were seen
    /// on both sides, and whether that is all that makes the place.
    blocks: HashMap<usize, (usize, usize, bool, bool)>,
    /// The run that shows most of it: telling characters, start, lines.
    shown: Option<(usize, usize, usize)>,
    /// The longest run without regard to places: lines, start.
    longest: Option<(usize, usize)>,
}

impl Seen {
    fn block(&mut self, number: usize, block: (usize, usize, bool, bool), run: &Run) {
        if block.0 == 0 {
            return;
        }
        let known = self.blocks.entry(number).or_default();
        *known = (*known).max(block);
        self.shown = self.shown.max(Some((block.1, run.start, run.lines)));
    }

    /// What it means; the first line that shows it, and how many.
    fn says(&self) -> Option<(Severity, usize, usize)> {
        let in_place = || self.blocks.values().filter(|block| block.3);
        let telling: usize = in_place().map(|block| block.0).sum();
        let characters: usize = in_place().map(|block| block.1).sum();
        let mut blocks = self.blocks.values();
        let between = blocks.any(|block| block.2 && block.1 >= SOFT);
        if let Some((_, start, lines)) = self.shown {
            if telling >= HARD.0 && characters >= HARD.1 {
                return Some((Severity::Hard, start, lines));
            }
            if between {
                return Some((Severity::Soft, start, lines));
            }
        }
        let (lines, start) = self.longest?;
        Some((Severity::Soft, start, lines))
    }
}

/// A line without the number, or the file and the number, that a listing puts before it.
fn numbered(line: &str) -> Option<&str> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let after = |text: &'_ str| -> Option<usize> {
        let count = digits(text);
        let rest = text.get(count..)?;
        (count > 0 && rest.starts_with(['\t', ':', '|', '-', ' '])).then_some(count + 1)
    };
    let trimmed = line.trim_start();
    if let Some(end) = after(trimmed) {
        return trimmed.get(end..);
    }
    let at = line.find(":").or_else(|| line.find('-'))?;
    let rest = line.get(at + 1..)?;
    rest.get(after(rest)?..)
}

/// Whether a path, as a command gives it, is this file.
fn same_file(path: &str, file: &str) -> bool {
    path == file
        || path
            .strip_suffix(file)
            .is_some_and(|before| before.ends_with('/'))
}

/// A text without spaces.
fn squeezed(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_whitespace())
        .collect()
}

/// The words of a text, as hashes.
fn words(text: &str) -> impl Iterator<Item = u64> {
    text.split(|character: char| !(character.is_alphanumeric() || character == '_'))
        .filter(|word| !word.is_empty())
        .map(hash)
}

fn hash(text: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
