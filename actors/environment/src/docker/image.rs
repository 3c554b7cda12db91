//! Images: made here from this machine's files and a prepared environment, or a user's
//! own. Nothing is ever pulled, and nobody's image is removed.

use super::base::Base;
use super::client::{self, Engine, Trouble, limited};
use super::container::{self, AGENT};
use super::owner::Owner;
use super::tree::{Node, Tree};
use crate::bubblewrap;
use crate::provision::Prepared;
use crate::tree::Snapshot;
use crate::{diff, failure};
use bollard::query_parameters::*;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use gametape_schemas::{Digest, Failure};
use std::io::{self, Write};
use std::path::Path;

/// What sandboxes are opened from: an image, and the repository that goes into them.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its id in the engine, a digest: a tag may move, this does not.
    pub id: String,
    /// Where the repository is inside.
    pub place: String,
    /// The environment of every command.
    pub environment: Vec<(String, String)>,
    /// The repository's text files: the base state of diffs.
    pub files: Snapshot,
    /// Links, empty directories and large files of the repository.
    pub rest: Vec<(String, Node)>,
    /// Names the content of the repository.
    pub clean: Digest,
    /// Who runs commands in a user's own image; `None` for one that was made here.
    pub user: Option<String>,
    /// What the image says of the version of its Python.
    pub python: Option<String>,
}

/// Largest file of a user's repository that is taken along (64 MiB).
const LARGEST: u64 = 64 << 20;
/// Largest repository of a user's image (1 GiB).
const LARGEST_TREE: u64 = 1 << 30;

/// The image of a prepared environment, made when it is not there. Blocks, the first
/// time for some ten seconds.
///
/// # Errors
/// `GT-SANDBOX-IMAGE`, `GT-DOCKER-*`.
pub fn prepared(engine: &Engine, prepared: &Prepared) -> Result<Image, Failure> {
    let interpreter = &prepared.manifest.interpreter;
    let mine = |e: io::Error| failure::image("gametape/base", e);
    let base = Base::collect(interpreter, AGENT).map_err(mine)?;
    let base_tag = base.digest().map_err(mine)?;
    let recipe = &prepared.manifest.recipe;
    let short: String = recipe.id().as_str().chars().take(16).collect();
    let tag = format!("{short}-{base_tag}");
    let venv = prepared.venv();
    let id = client::wait(async {
        if let Some(id) = id_of(engine, &format!("gametape/environment:{tag}")).await? {
            return Ok(id);
        }
        if id_of(engine, &format!("gametape/base:{base_tag}"))
            .await?
            .is_none()
        {
            import(engine, base, &base_tag).await?;
        }
        build(engine, &venv, &base_tag, &tag).await
    })?;
    Ok(Image {
        id: id.map_err(|trouble| made(&format!("gametape/environment:{tag}"), trouble))?,
        place: bubblewrap::TESTBED.to_owned(),
        environment: bubblewrap::environment(&recipe.source_root),
        files: prepared.files.clone(),
        rest: Vec::new(),
        clean: prepared.manifest.tree.clone(),
        user: None,
        python: Some(interpreter.version.clone()),
    })
}

/// A user's own image, by digest or name, with a repository at `place`. Its git history
/// is left out: what came after the base commit would be in it. Blocks.
///
/// # Errors
/// `GT-SANDBOX-IMAGE` when it is not in the engine or has no repository there;
/// `GT-DOCKER-*`.
pub fn own(engine: &Engine, reference: &str, place: &str) -> Result<Image, Failure> {
    let place = place.trim_end_matches('/');
    if !place.starts_with('/') || place.split('/').any(|part| part == "..") {
        let why = format!("`{place}` is no absolute path of a directory");
        return Err(failure::image(reference, why));
    }
    client::wait(async {
        let call = engine.docker.inspect_image(reference);
        let found = match engine.call("look at an image", call).await {
            Err(Trouble::Missing(_)) => {
                return Err(failure::image(reference, "the engine does not have it"));
            }
            other => other?,
        };
        let id = found.id.unwrap_or_default();
        let tree = repository(engine, &id, place)
            .await
            .map_err(|trouble| match trouble {
                Trouble::Missing(_) => failure::image(reference, format!("it has no {place}")),
                other => other.into(),
            })?;
        let tree =
            tree.ok_or_else(|| failure::image(reference, format!("{place} is larger than 1 GiB")))?;
        let (environment, user) = match found.config {
            Some(config) => (config.env.unwrap_or_default(), config.user),
            None => (Vec::new(), None),
        };
        // Numbers are known where there are no names.
        let user = user.filter(|user| !user.is_empty());
        let image = of_tree(id, place, environment, &tree);
        Ok(Image {
            user: Some(user.unwrap_or_else(|| "0".to_owned())),
            ..image
        })
    })?
}

/// Whether a path in an archive of an image's repository is none of its history's.
pub(super) fn is_no_history(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|part| part != b".git")
}

fn of_tree(id: String, place: &str, environment: Vec<String>, tree: &Tree) -> Image {
    let (mut files, mut rest) = (Snapshot::new(), Vec::new());
    for (path, node) in tree.nodes() {
        if diff::is_by_product(path) {
            continue;
        }
        match node {
            Node::File(entry, _) => {
                files.insert(path.to_owned(), entry.clone());
            }
            Node::Large(None, _) | Node::Other => {
                tracing::warn!(path, "left out of the image's repository");
            }
            node => rest.push((path.to_owned(), node.clone())),
        }
    }
    let own = environment.iter().filter_map(|pair| pair.split_once('='));
    let mut all: Vec<(String, String)> = own
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // Ours, but not where the image's own programs and packages are.
    let ours = bubblewrap::environment(".")
        .into_iter()
        .filter(|(name, _)| {
            !matches!(name.as_str(), "PYTHONPATH" | "VIRTUAL_ENV")
                && (name != "PATH" || !all.iter().any(|(own, _)| own == "PATH"))
        });
    all.extend(ours.collect::<Vec<_>>());
    let python = all.iter().find(|(name, _)| name == "PYTHON_VERSION");
    Image {
        // The image decides what is there.
        clean: Digest::of_bytes(format!("{id}\0{place}").as_bytes()),
        id,
        place: place.to_owned(),
        python: python.map(|(_, version)| version.clone()),
        environment: all,
        files,
        rest,
        user: None,
    }
}

/// The repository of an image, out of a container that is never started.
async fn repository(engine: &Engine, image: &str, place: &str) -> Result<Option<Tree>, Trouble> {
    static LOOKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = LOOKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let owner = Owner::this();
    let name = format!("{}-look", owner.container(number));
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let body = container::never_started(image, &owner);
    let call = engine.docker.create_container(Some(options), body);
    engine.slow("create", call).await?;
    let tree = engine.download(&name, place, LARGEST, LARGEST_TREE, is_no_history);
    let tree = tree.await;
    engine.remove(&name).await?;
    tree
}

/// What an image's trouble is to whoever wants a sandbox.
fn made(name: &str, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Gone(_) | Trouble::Late(..) => trouble.into(),
        Trouble::Missing(why) | Trouble::Conflict(why) | Trouble::Refused(why) => {
            failure::image(name, why)
        }
    }
}

async fn id_of(engine: &Engine, name: &str) -> Result<Option<String>, Trouble> {
    let call = engine.docker.inspect_image(name);
    match engine.call("look at an image", call).await {
        Ok(found) => Ok(found.id),
        Err(Trouble::Missing(_)) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

/// The base image, streamed in.
async fn import(engine: &Engine, base: Base, tag: &str) -> Result<(), Trouble> {
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo("gametape/base")
        .tag(tag)
        .build();
    let body = bollard::body_try_stream(written(move |to| base.write(to)).map_ok(Into::into));
    let answers = engine.docker.create_image(Some(options), Some(body), None);
    let all = async { Ok(answers.try_for_each(|_| async { Ok(()) }).await?) };
    limited("import of an image", engine.settings.image, all).await
}

/// The environment's image on top of it: the packages at their place.
async fn build(engine: &Engine, venv: &Path, base: &str, tag: &str) -> Result<String, Trouble> {
    let name = format!("gametape/environment:{tag}");
    let options = BuildImageOptionsBuilder::default()
        .t(&name)
        .networkmode("none")
        .rm(true)
        .forcerm(true)
        .build();
    let recipe = format!(
        "FROM gametape/base:{base}\nCOPY venv {}\n",
        bubblewrap::VENV
    );
    let venv = venv.to_owned();
    let context = written(move |to| {
        let mut archive = tar::Builder::new(to);
        archive.follow_symlinks(false);
        let mut header = tar::Header::new_gnu();
        header.set_size(recipe.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "Dockerfile", recipe.as_bytes())?;
        archive.append_dir_all("venv", &venv)?;
        archive.into_inner()?.flush()
    });
    let body = bollard::body_try_stream(context.map_ok(Into::into));
    let answers = engine.docker.build_image(options, None, Some(body));
    let all = async { Ok(answers.try_for_each(|_| async { Ok(()) }).await?) };
    limited("build of an image", engine.settings.image, all).await?;
    let missing = || Trouble::Refused("the image that was built is not there".to_owned());
    id_of(engine, &name).await?.ok_or_else(missing)
}

/// What a writer writes on a thread of its own, in pieces.
fn written(
    work: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
    struct Pieces(tokio::sync::mpsc::Sender<io::Result<Vec<u8>>>);
    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Nobody reads any more: the engine said no, and says why itself.
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.0.blocking_send(Ok(bytes.to_vec())).map_err(gone)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    tokio::task::spawn_blocking(move || {
        let mut to = io::BufWriter::with_capacity(256 << 10, Pieces(sender.clone()));
        if let Err(error) = work(&mut to).and_then(|()| to.flush()) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    stream::poll_fn(move |context| receiver.poll_recv(context)).fuse()
}
