//! Recipes that choose their Python, take a commit of a git repository, and run commands
//! of their own. With hand-made packages and repositories of this machine. Skips loudly
//! where Python, git or bubblewrap is missing.

#![allow(clippy::unwrap_used)]

use gametape_environment::provision::{self, Prepared, python};
use gametape_schemas::{EnvironmentRecipe, Failure, PinnedPackage, RepositorySource};
use std::path::{Path, PathBuf};
use std::process::Command;

fn git(at: &Path, words: &[&str]) -> String {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "init.defaultBranch=m",
        ])
        .args(["-c", "protocol.file.allow=always"])
        .args(words)
        .current_dir(at)
        .output()
        .unwrap();
    assert!(out.status.success(), "git {words:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A repository with three commits, its cache, and the second commit; or a loud skip.
struct Scene {
    _directory: tempfile::TempDir,
    cache: PathBuf,
    repository: PathBuf,
    commit: String,
}

fn scene(test: &str) -> Option<Scene> {
    let has_git = Command::new("git").arg("--version").output().is_ok();
    if !has_git || python::interpreter().is_err() {
        eprintln!("SKIPPED: {test}: no git, or no Python");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("origin");
    std::fs::create_dir_all(at.join("pkg")).unwrap();
    git(&at, &["init", "-q"]);
    let commit = |text: &str| {
        std::fs::write(at.join("pkg/a.py"), text).unwrap();
        git(&at, &["add", "."]);
        git(&at, &["commit", "-qm", text.trim()]);
        git(&at, &["rev-parse", "HEAD"])
    };
    commit("x = 0\n");
    std::fs::write(at.join("run.sh"), "#!/bin/sh\n").unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(at.join("run.sh"), open).unwrap();
    // What git would do on the way out, were it asked to write the files.
    let attributes = "secret.txt export-ignore\n*.py export-subst\n*.sh text eol=crlf\n";
    std::fs::write(at.join(".gitattributes"), attributes).unwrap();
    std::fs::write(at.join("secret.txt"), "kept\n").unwrap();
    let second = commit("x = 1  # $Format:%H$\n");
    commit("x = 2  # the fix\n");
    Some(Scene {
        cache: directory.path().join("cache"),
        _directory: directory,
        repository: at,
        commit: second,
    })
}

fn recipe(url: &str, commit: &str) -> EnvironmentRecipe {
    EnvironmentRecipe {
        package: PinnedPackage {
            name: "owner/pkg".into(),
            version: "1.0".into(),
            sha256: String::new(),
        },
        requirements: vec![],
        source_root: ".".into(),
        code: vec![],
        tests: vec![],
        skip_tests: vec![],
        layout: 0,
        python: None,
        source: Some(RepositorySource::Git {
            url: url.into(),
            commit: commit.into(),
        }),
        setup: Vec::new(),
    }
}

impl Scene {
    fn recipe(&self) -> EnvironmentRecipe {
        recipe(self.repository.to_str().unwrap(), &self.commit)
    }

    fn fails(&self, recipe: &EnvironmentRecipe) -> Failure {
        provision::provision(&self.cache, recipe).unwrap_err()
    }

    fn made(&self, recipe: &EnvironmentRecipe) -> Prepared {
        provision::provision(&self.cache, recipe).unwrap().0
    }

    /// Files beside the environments with this ending.
    fn beside(&self, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.cache.join("environments")).unwrap();
        let paths = entries.flatten().map(|entry| entry.path());
        paths
            .filter(|path| path.to_string_lossy().ends_with(ending))
            .collect()
    }
}

#[test]
fn a_commit_is_taken_without_its_history() {
    let Some(scene) = scene("a_commit_is_taken_without_its_history") else {
        return;
    };
    let prepared = scene.made(&scene.recipe());
    let names: Vec<&String> = prepared.files.keys().collect();
    assert_eq!(
        names,
        [".gitattributes", "pkg/a.py", "run.sh", "secret.txt"]
    );
    let text = |name: &str| String::from_utf8(prepared.files[name].bytes.to_vec()).unwrap();
    // Byte by byte what was committed.
    assert_eq!(text("pkg/a.py"), "x = 1  # $Format:%H$\n");
    assert_eq!(
        (text("run.sh").as_str(), prepared.files["run.sh"].executable),
        ("#!/bin/sh\n", true)
    );
    let left = walkdir::WalkDir::new(&prepared.directory)
        .into_iter()
        .flatten();
    let history =
        |entry: &walkdir::DirEntry| entry.file_name() == ".git" || entry.file_name() == "git";
    assert_eq!(left.filter(history).count(), 0, "no history lies beside it");
    // The same by its other address is another recipe of the same tree.
    let url = format!("file://{}", scene.repository.display());
    let other = recipe(&url, &scene.commit);
    assert_ne!(other.id(), scene.recipe().id());
    assert_eq!(scene.made(&other).manifest.tree, prepared.manifest.tree);
    // Parts that are named must be there.
    let mut named = scene.recipe();
    named.tests = vec!["tests".into()];
    assert_eq!(scene.fails(&named).code, "GT-ENV-NO-TESTS");
}

#[test]
fn what_cannot_be_fetched_says_why_and_runs_nothing() {
    let Some(scene) = scene("what_cannot_be_fetched_says_why_and_runs_nothing") else {
        return;
    };
    let url = scene.repository.to_str().unwrap();
    let unknown = "ab".repeat(20);
    let failure = scene.fails(&recipe(url, &unknown));
    assert_eq!(failure.code, "GT-ENV-SOURCE");
    assert!(
        failure.message.contains(&format!("no commit {unknown}")),
        "{failure}"
    );
    // It is not asked for again.
    assert_eq!(scene.beside(".failed").len(), 1);
    assert_eq!(scene.fails(&recipe(url, &unknown)), failure);
    for short in ["m", "HEAD", &scene.commit[..12]] {
        assert!(
            scene
                .fails(&recipe(url, short))
                .message
                .contains("full object name")
        );
    }
    // A tree is no commit.
    let tree = git(
        &scene.repository,
        &["rev-parse", &format!("{}^{{tree}}", scene.commit)],
    );
    assert!(
        scene
            .fails(&recipe(url, &tree))
            .message
            .contains("is a tree")
    );
    let nowhere = scene.fails(&recipe("/no/such/place", &scene.commit));
    assert_eq!(nowhere.code, "GT-ENV-SOURCE");
    let marks = scene.cache.join("ran");
    let touch = format!("touch% {}", marks.display());
    for bad in [
        format!("ext::sh -c {touch}"),
        format!("--upload-pack=touch {};x", marks.display()),
        format!("$(touch {})", marks.display()),
        format!("/x;touch {}", marks.display()),
        "http://127.0.0.1:1/x".to_owned(),
    ] {
        assert_eq!(
            scene.fails(&recipe(&bad, &scene.commit)).code,
            "GT-ENV-SOURCE",
            "{bad}"
        );
    }
    assert!(!marks.exists());
    assert!(scene.beside(".half").is_empty());
    // A repository of somebody's with hooks and settings runs none of them.
    let hook = scene.repository.join(".git/hooks/post-upload-pack");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", marks.display())).unwrap();
    git(
        &scene.repository,
        &[
            "config",
            "uploadpack.packObjectsHook",
            hook.to_str().unwrap(),
        ],
    );
    scene.made(&scene.recipe());
    assert!(!marks.exists());
}

#[test]
fn submodules_are_refused_with_words() {
    let Some(scene) = scene("submodules_are_refused_with_words") else {
        return;
    };
    let at = &scene.repository;
    let entry = format!("160000,{},vendor/x", scene.commit);
    git(at, &["update-index", "--add", "--cacheinfo", &entry]);
    git(at, &["commit", "-qm", "with a submodule"]);
    let commit = git(at, &["rev-parse", "HEAD"]);
    let failure = scene.fails(&recipe(at.to_str().unwrap(), &commit));
    assert_eq!(failure.code, "GT-ENV-SOURCE");
    assert!(
        failure.message.contains("`vendor/x` is a submodule"),
        "{failure}"
    );
}

#[test]
fn the_recipe_chooses_its_python() {
    let Some(scene) = scene("the_recipe_chooses_its_python") else {
        return;
    };
    let usual = python::interpreter().unwrap();
    let plain = scene.recipe();
    let mut chosen = plain.clone();
    chosen.python = Some(usual.version.clone());
    assert_ne!(chosen.id(), plain.id());
    assert_eq!(
        scene.made(&chosen).manifest.interpreter.version,
        usual.version
    );
    chosen.python = Some("3.99".into());
    let failure = scene.fails(&chosen);
    assert_eq!(failure.code, "GT-ENV-PYTHON");
    let (wanted, found) = ("3.99", usual.version.as_str());
    assert!(
        failure.message.contains(wanted) && failure.message.contains(found),
        "{failure}"
    );
    // Another one than the usual, where this machine has it.
    let other = ["3.13", "3.12", "3.11"]
        .into_iter()
        .filter(|version| !usual.version.starts_with(version))
        .find_map(|version| Some((version, python::fitting(Some(version)).ok()?)));
    let Some((version, interpreter)) = other else {
        eprintln!("SKIPPED: the_recipe_chooses_its_python: one Python only");
        return;
    };
    chosen.python = Some(version.into());
    let prepared = scene.made(&chosen);
    assert_eq!(prepared.manifest.interpreter, interpreter);
    let library = prepared.venv().join("lib").join(format!("python{version}"));
    assert!(library.is_dir(), "{} is not there", library.display());
}

/// Whether commands of a recipe's own can run here.
fn has_walls(test: &str) -> bool {
    let words = ["--unshare-user", "--ro-bind", "/", "/", "true"];
    let tried = Command::new("bwrap").args(words).output();
    let works = tried.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("SKIPPED: {test}: bubblewrap makes no user namespace here");
    }
    works
}

#[test]
fn setup_runs_once_behind_walls() {
    let test = "setup_runs_once_behind_walls";
    let Some(scene) = scene(test) else {
        return;
    };
    if !has_walls(test) {
        return;
    }
    let secret = scene.cache.join("secret");
    std::fs::create_dir_all(&scene.cache).unwrap();
    std::fs::write(&secret, "x").unwrap();
    let mut recipe = scene.recipe();
    recipe.setup = vec![
        // Where sandboxes see them, and as nobody of this machine's.
        "pwd > pwd.txt; id -u > id.txt; command -v python >> pwd.txt; command -v pip >> pwd.txt"
            .into(),
        "python -c 'import sys; print(sys.prefix)' > prefix.txt".into(),
        // Of the host its programs, nothing else.
        format!(
            "for attack in 'ls {}' 'cat {}' 'cat /etc/shadow' 'touch /usr/x' 'touch /etc/alternatives/x' \
             'mount -t tmpfs none /tmp' 'chroot /tmp true' 'kill -0 {}'; do \
             if $attack; then echo \"ALLOWED: $attack\"; exit 1; fi; done",
            scene.cache.display(),
            secret.display(),
            std::process::id()
        ),
        // What it installs is found under its later name.
        "printf '#!/venv/bin/python\\n' > /venv/bin/tool; chmod +x /venv/bin/tool; \
         mkdir -p build pkg.egg-info && echo made > build/out.txt"
            .into(),
        // Links that would lead whoever writes or copies here to somewhere else.
        format!(
            "ln -s {} pkg.egg-info/entry_points.txt && cd /venv/lib/python3* && \
             mv site-packages elsewhere && ln -s {} site-packages",
            secret.display(),
            scene.cache.display()
        ),
    ];
    let (prepared, cached) = provision::provision(&scene.cache, &recipe).unwrap();
    assert!(!cached);
    let text = |name: &str| String::from_utf8(prepared.files[name].bytes.to_vec()).unwrap();
    assert_eq!(
        text("pwd.txt"),
        "/testbed\n/venv/bin/python\n/venv/bin/pip\n"
    );
    assert_eq!(
        (text("id.txt").as_str(), text("prefix.txt").as_str()),
        ("1000\n", "/venv\n")
    );
    assert_eq!(text("build/out.txt"), "made\n");
    assert!(prepared.venv().join("bin/tool").is_file());
    assert!(
        !scene.cache.join("pkg-1.0.dist-info").exists(),
        "a link was followed"
    );
    assert!(!prepared.directory.join("setup").exists());
    // The second time everything is there.
    let (again, cached) = provision::provision(&scene.cache, &recipe).unwrap();
    assert!(cached && again.files == prepared.files);
    assert_ne!(recipe.id(), scene.recipe().id());
}

#[test]
fn a_setup_that_fails_shows_its_end_and_is_kept() {
    let test = "a_setup_that_fails_shows_its_end_and_is_kept";
    let Some(scene) = scene(test) else {
        return;
    };
    if !has_walls(test) {
        return;
    }
    let mut recipe = scene.recipe();
    recipe.setup = vec![
        "true".into(),
        "seq 40; echo the reason >&2; exit 3".into(),
        "touch never".into(),
    ];
    let failure = scene.fails(&recipe);
    assert_eq!(failure.code, "GT-ENV-PROVISION");
    for part in ["seq 40", "exit status: 3", "the reason", "\n40\n"] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    assert!(!failure.message.contains("\n20\n"), "{failure}");
    let [kept] = &scene.beside(".failed")[..] else {
        panic!("it is not kept");
    };
    std::fs::write(kept.with_extension("log"), "untouched").unwrap();
    assert_eq!(scene.fails(&recipe), failure);
    assert_eq!(
        std::fs::read_to_string(kept.with_extension("log")).unwrap(),
        "untouched"
    );
    // Another recipe is another matter; and what the network did is tried again.
    recipe.setup = vec!["echo 'Could not resolve host: x' >&2; exit 6".into()];
    scene.fails(&recipe);
    assert_eq!(scene.beside(".failed").len(), 1);
    // History that a command makes is no part of a repository.
    recipe.setup = vec!["mkdir .git && touch .git/HEAD".into()];
    assert_eq!(scene.fails(&recipe).code, "GT-ENV-HISTORY");
    recipe.setup.clear();
    scene.made(&recipe);
}

#[test]
fn an_image_is_no_directory() {
    let cache = tempfile::tempdir().unwrap();
    let recipe = EnvironmentRecipe::of_image("o/r", "1", "image:1", "/testbed");
    let failure = provision::provision(cache.path(), &recipe).unwrap_err();
    assert_eq!(failure.code, "GT-ENV-DOCKER");
    assert!(failure.help.contains("docker"), "{failure}");
}
