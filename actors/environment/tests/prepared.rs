//! Prepared environments over time: recipes that fail, budgets of disk, history. With
//! hand-made packages: no index is asked. Skips loudly without Python, venv or pip.

#![allow(clippy::unwrap_used)]

use gametape_environment::provision::{self, Prepared, collect};
use gametape_schemas::{EnvironmentId, EnvironmentRecipe, Failure, PinnedPackage};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// A recipe whose source archive lies in the cache already.
fn subject(cache: &Path, name: &str, more: &[(&str, &[u8])]) -> EnvironmentRecipe {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        Default::default(),
    ));
    let files = [
        ("src/a.py", b"x = 1\n".as_slice()),
        ("tests/test_a.py", b"def test(): pass\n"),
    ];
    for (path, content) in files.iter().chain(more) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{name}-1.0/{path}"), *content)
            .unwrap();
    }
    let bytes = tar.into_inner().unwrap().finish().unwrap();
    let package = PinnedPackage {
        name: name.into(),
        version: "1.0".into(),
        sha256: hex(&bytes),
    };
    let place = cache.join("packages").join(&package.sha256);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join(format!("{name}-1.0.tar.gz")), bytes).unwrap();
    EnvironmentRecipe {
        package,
        requirements: vec![],
        source_root: ".".into(),
        code: vec!["src".into()],
        tests: vec!["tests".into()],
        skip_tests: vec![],
        layout: 0,
        python: None,
        source: None,
        setup: Vec::new(),
    }
}

/// A prepared environment, or a loud skip where Python cannot make one.
fn made(test: &str, cache: &Path, recipe: &EnvironmentRecipe) -> Option<Prepared> {
    match provision::provision(cache, recipe) {
        Ok((prepared, _)) => Some(prepared),
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            None
        }
    }
}

const WHEEL: &str = r"
import sys, zipfile
path, whole = sys.argv[1], sys.argv[2] == 'whole'
info = 'helper-1.0.dist-info/'
with zipfile.ZipFile(path, 'w') as z:
    z.writestr('helper.py', 'y = 2\n')
    z.writestr(info + 'METADATA', 'Metadata-Version: 2.1\nName: helper\nVersion: 1.0\n')
    z.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    if whole:
        z.writestr(info + 'RECORD', ''.join(f + ',,\n' for f in z.namelist()))
";

/// A wheel `helper 1.0`; one that is not whole can be downloaded and not installed.
fn wheel(directory: &Path, kind: &str) -> (PathBuf, String) {
    std::fs::create_dir_all(directory).unwrap();
    let path = directory.join("helper-1.0-py3-none-any.whl");
    let done = Command::new(provision::python::name())
        .args(["-c", WHEEL])
        .arg(&path)
        .arg(kind)
        .status();
    assert!(done.unwrap().success());
    let sum = hex(&std::fs::read(&path).unwrap());
    (path, sum)
}

fn failing(cache: &Path, recipe: &EnvironmentRecipe) -> Failure {
    provision::provision(cache, recipe).unwrap_err()
}

/// Files beside the environments with this ending.
fn beside(cache: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cache.join("environments")).unwrap();
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect()
}

#[test]
fn a_recipe_that_cannot_be_installed_is_not_tried_again() {
    let test = "a_recipe_that_cannot_be_installed_is_not_tried_again";
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let good = subject(&cache, "subject", &[]);
    if made(test, &cache, &good).is_none() {
        return;
    }
    let wheels = dir.path().join("wheels");
    let (_, sum) = wheel(&wheels, "torn");
    let mut recipe = good.clone();
    recipe.requirements = vec![
        "--no-index".into(),
        format!("--find-links {}", wheels.display()),
        format!("helper==1.0 --hash=sha256:{sum}"),
    ];
    let first = failing(&cache, &recipe);
    assert_eq!(first.code, "GT-ENV-PROVISION");
    // The end of the log, and the way out.
    assert!(first.message.contains("RECORD"), "{first}");
    let [kept] = &beside(&cache, ".failed")[..] else {
        panic!("{:?}", beside(&cache, ".failed"));
    };
    assert!(first.help.contains(kept.to_str().unwrap()), "{first}");
    assert!(beside(&cache, ".half").is_empty());
    // A second try would begin the log anew.
    let log = kept.with_extension("log");
    std::fs::write(&log, "untouched").unwrap();
    assert_eq!(failing(&cache, &recipe), first);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "untouched");
    // Another recipe is another matter.
    let mut other = recipe.clone();
    other.requirements.pop();
    assert!(provision::provision(&cache, &other).is_ok());
    // Removed, it is tried again, and fails again.
    std::fs::remove_file(kept).unwrap();
    assert_eq!(failing(&cache, &recipe).code, first.code);
    assert_ne!(std::fs::read_to_string(&log).unwrap(), "untouched");
    // A wheel that the hash does not fit is the pin's fault, too.
    recipe.requirements[2] = format!("helper==1.0 --hash=sha256:{}", "0".repeat(64));
    let wrong = failing(&cache, &recipe);
    assert!(wrong.message.contains("HASHES"), "{wrong}");
    assert_eq!(failing(&cache, &recipe), wrong);
    assert_eq!(beside(&cache, ".failed").len(), 2);
    // An unreadable record is none.
    for path in beside(&cache, ".failed") {
        std::fs::write(&path, "{").unwrap();
    }
    assert!(failing(&cache, &recipe).message.contains("HASHES"));
}

/// An index on this machine that knows nothing until it is opened.
fn index(wheel: PathBuf) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = Arc::new(AtomicBool::new(false));
    let is_open = open.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let asked = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let (status, kind, body) = if !is_open.load(Ordering::SeqCst) {
                ("404 Not Found", "text/html", Vec::new())
            } else if asked.contains(".whl") {
                ("200 OK", "application/zip", std::fs::read(&wheel).unwrap())
            } else {
                let name = wheel.file_name().unwrap().to_str().unwrap();
                let page = format!("<html><body><a href=\"/{name}\">{name}</a></body></html>");
                ("200 OK", "text/html", page.into_bytes())
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // pip may hang up; the next request tells.
            let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
        }
    });
    (port, open)
}

#[test]
fn what_an_index_could_not_give_is_asked_for_again() {
    let test = "what_an_index_could_not_give_is_asked_for_again";
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let mut recipe = subject(&cache, "subject", &[]);
    if made(test, &cache, &recipe).is_none() {
        return;
    }
    let (path, sum) = wheel(&dir.path().join("wheels"), "whole");
    let (port, open) = index(path);
    recipe.requirements = vec![
        format!("--index-url http://127.0.0.1:{port}/simple"),
        format!("helper==1.0 --hash=sha256:{sum}"),
    ];
    let failure = failing(&cache, &recipe);
    assert_eq!(failure.code, "GT-ENV-PROVISION");
    assert!(failure.message.contains("helper"), "{failure}");
    assert!(beside(&cache, ".failed").is_empty());
    open.store(true, Ordering::SeqCst);
    let (prepared, cached) = provision::provision(&cache, &recipe).unwrap();
    assert!(!cached);
    let found = walkdir::WalkDir::new(prepared.venv())
        .into_iter()
        .flatten()
        .any(|entry| entry.file_name() == "helper.py");
    assert!(found, "the package is not in the environment");
    assert!(!prepared.directory.join("wheels").exists());
}

/// Sets when an environment was used last.
fn used(prepared: &Path, seconds_ago: u64) {
    let mut name = prepared.file_name().unwrap().to_owned();
    name.push(".used");
    let file = File::options()
        .write(true)
        .open(prepared.with_file_name(name))
        .unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds_ago))
        .unwrap();
}

#[test]
fn the_longest_unused_go_until_the_rest_fits() {
    let test = "the_longest_unused_go_until_the_rest_fits";
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path();
    let filler = vec![b'x'; 3 << 20];
    let recipes: Vec<EnvironmentRecipe> = ["a", "b", "c", "d"]
        .iter()
        .map(|name| subject(cache, name, &[("data.txt", &filler)]))
        .collect();
    let mut places = Vec::new();
    for (recipe, age) in recipes.iter().zip([400, 300, 200, 100]) {
        let Some(prepared) = made(test, cache, recipe) else {
            return;
        };
        used(&prepared.directory, age);
        places.push(prepared.directory);
    }
    let none = HashSet::new();
    let all = collect(cache, u64::MAX, &none).unwrap();
    assert!(all.removed.is_empty());
    assert!(all.left > 4 * (3 << 20), "{all:?}");
    // `a` is held by somebody alive, `b` is wanted by the caller: `c` goes.
    let (holder, cached) = provision::provision(cache, &recipes[0]).unwrap();
    assert!(cached);
    used(&places[0], 400);
    let wanted: HashSet<EnvironmentId> = [recipes[1].id()].into();
    let done = collect(cache, all.left - 1, &wanted).unwrap();
    assert_eq!(done.removed, [places[2].clone()]);
    assert!(
        done.bytes > 3 << 20 && done.left == all.left - done.bytes,
        "{done:?}"
    );
    assert!(!places[2].exists() && beside(cache, ".gone").is_empty());
    // Nothing fits, and still what is in use stays.
    let done = collect(cache, 0, &wanted).unwrap();
    assert_eq!(done.removed, [places[3].clone()]);
    assert!(places[0].is_dir() && places[1].is_dir() && done.left > 0);
    assert!(holder.repository().join("src/a.py").is_file());
    // No longer in use: both, the longest unused first.
    let copy = holder.clone();
    drop(holder);
    assert!(collect(cache, 0, &wanted).unwrap().removed.is_empty());
    drop(copy);
    let done = collect(cache, 0, &none).unwrap();
    assert_eq!(done.removed, places[..2]);
    assert_eq!(done.left, 0);
    // What went is made again, and its use is recorded.
    let before = SystemTime::now() - Duration::from_secs(1);
    let (again, cached) = provision::provision(cache, &recipes[0]).unwrap();
    assert!(!cached);
    let mark = format!("{}.used", again.directory.display());
    let last = std::fs::metadata(mark).unwrap().modified().unwrap();
    assert!(last >= before);
    drop(again);
    assert_eq!(collect(cache, 0, &none).unwrap().removed, places[..1]);
}

#[test]
fn history_in_an_archive_is_refused_and_planted_later_is_cleared() {
    let test = "history_in_an_archive_is_refused_and_planted_later_is_cleared";
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path();
    let clean = subject(cache, "clean", &[]);
    let Some(prepared) = made(test, cache, &clean) else {
        return;
    };
    for (name, path, content) in [
        ("file", ".git", b"gitdir: /elsewhere\n".as_slice()),
        ("store", "docs/.git/HEAD", b"ref: refs/heads/main\n"),
        ("svn", "src/.svn/entries", b"12\n"),
        ("lent", "data/objects/info/alternates", b"/other/objects\n"),
        ("pack", "tests/fixture.bin", b"PACK\0\0\0\x02\0\0\0\x01"),
    ] {
        let failure = failing(cache, &subject(cache, name, &[(path, content)]));
        assert_eq!(failure.code, "GT-ENV-HISTORY", "{failure}");
        let top = path.split("/HEAD").next().unwrap().replace("/entries", "");
        assert!(failure.message.contains(&top), "{failure}");
    }
    assert!(beside(cache, ".half").is_empty());
    // Somebody runs `git init` in the prepared repository.
    std::fs::create_dir(prepared.repository().join(".git")).unwrap();
    std::fs::write(prepared.repository().join(".git/HEAD"), "x").unwrap();
    let (mended, cached) = provision::provision(cache, &clean).unwrap();
    assert!(!cached && !mended.repository().join(".git").exists());
    assert_eq!(mended.manifest.tree, prepared.manifest.tree);
}
