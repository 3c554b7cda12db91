//! The engine, and every call to it with a deadline of its own.
//!
//! bollard's own time limit ends at the headers of an answer: a stream may then hang for
//! ever. So each call and each stream is wrapped here, and nothing outside of this file
//! and [`super::exec`] waits for the engine.

use super::archive::Reader;
use super::settings::EngineSettings;
use super::spared::{COLUMNS, Count, Spared};
use super::tree::Tree;
use crate::failure;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::*;
use bollard::query_parameters::*;
use futures_util::StreamExt;
use gametape_schemas::Failure;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;

/// Why a call did not do what it was to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The engine does not answer, or ended in the middle.
    Gone(String),
    /// It did not answer in time: what, and after how long.
    Late(&'static str, Duration),
    /// No such container or image.
    Missing(String),
    /// The thing is in a state in which this cannot be done: a container that ended.
    Conflict(String),
    /// The engine says no.
    Refused(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError {
                status_code,
                message,
            } => match status_code {
                404 => Self::Missing(message),
                409 => Self::Conflict(message),
                _ => Self::Refused(message),
            },
            Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::SocketNotFoundError(_) => Self::Gone(error.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Gone(why) => failure::engine_gone(why),
            Trouble::Late(what, limit) => failure::engine_late(what, limit),
            Trouble::Missing(why) | Trouble::Conflict(why) | Trouble::Refused(why) => {
                failure::engine_refused(why)
            }
        }
    }
}

/// A Docker Engine that answered once.
pub struct Engine {
    pub(super) docker: Docker,
    pub(super) settings: EngineSettings,
    pub(super) starts: Semaphore,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Threads that move the engine's bytes. They outlive every sandbox: a runtime must not
/// be dropped where an actor is.
fn runtime() -> Result<&'static Runtime, Failure> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("docker")
                .enable_all()
                .build()
                .map_err(|e| e.to_string())
        })
        .as_ref()
        .map_err(failure::engine_gone)
}

/// Blocks until `work` is done, also where a runtime is at work already.
///
/// # Errors
/// `GT-DOCKER-GONE` when no thread can be had.
pub(super) fn wait<T: Send>(work: impl Future<Output = T> + Send) -> Result<T, Failure> {
    let runtime = runtime()?;
    if Handle::try_current().is_err() {
        return Ok(runtime.block_on(work));
    }
    // An actor's thread may not block in a runtime: closing from a drop comes here.
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("docker-wait".to_owned())
            .spawn_scoped(scope, || runtime.block_on(work))
            .map_err(failure::engine_gone)?
            .join()
            .map_err(|_| failure::unfinished("a call to the engine panicked"))
    })
}

impl Engine {
    /// Finds the engine and asks it for its version. Blocks, some ten milliseconds.
    ///
    /// # Errors
    /// `GT-DOCKER-GONE`, `GT-DOCKER-TIMEOUT`.
    pub fn connect(settings: EngineSettings) -> Result<Arc<Self>, Failure> {
        let docker = match &settings.address {
            Some(address) => Docker::connect_with_host(address),
            None => Docker::connect_with_defaults(),
        };
        let docker = docker
            .map_err(Trouble::from)?
            .with_timeout(settings.image + Duration::from_secs(1));
        let starts = Semaphore::new(settings.starts.max(1));
        let limit = settings.call;
        let docker = wait(async move {
            limited("version", limit, async {
                Ok(docker.negotiate_version().await?)
            })
            .await
        })??;
        Ok(Arc::new(Self {
            docker,
            settings,
            starts,
        }))
    }

    /// A call that must be quick.
    pub(super) async fn call<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        limited(what, self.settings.call, async { Ok(call.await?) }).await
    }

    /// A call that moves bytes or starts processes.
    pub(super) async fn slow<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        limited(what, self.settings.slow, async { Ok(call.await?) }).await
    }

    /// Puts an archive into a directory of a container.
    pub(super) async fn upload(
        &self,
        container: &str,
        directory: &str,
        archive: Vec<u8>,
    ) -> Result<(), Trouble> {
        let options = UploadToContainerOptionsBuilder::default()
            .path(directory)
            .build();
        let body = bollard::body_full(archive.into());
        let call = self
            .docker
            .upload_to_container(container, Some(options), body);
        self.slow("upload", call).await
    }

    /// The tree below a directory of a container, but what `wanted` refuses by its path
    /// in the archive. `None` when it claims to hold more than `most` bytes: sparse files
    /// can be larger than any disk.
    pub(super) async fn download(
        &self,
        container: &str,
        directory: &str,
        keep: u64,
        most: u64,
        wanted: fn(&[u8]) -> bool,
    ) -> Result<Option<Tree>, Trouble> {
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(directory)
            .build();
        let reading = async {
            let mut stream = self
                .docker
                .download_from_container(container, Some(options));
            let (mut reader, mut tree) = (Reader::new(keep), Tree::default());
            let mut bytes = 0;
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                bytes += piece.len() as u64;
                if bytes > most {
                    return Ok(None);
                }
                reader
                    .push(&piece, &mut |found| {
                        if wanted(&found.path) {
                            tree.found(found);
                        }
                    })
                    .map_err(Trouble::Refused)?;
            }
            // A stream that ends early is an engine that ended.
            reader.finish().map_err(Trouble::Gone)?;
            Ok(Some(tree))
        };
        limited("download", self.settings.slow, reading).await
    }

    /// How many processes a container has now, counted from outside; `None` where the
    /// engine has no `ps` to count with.
    pub(super) async fn processes(
        &self,
        container: &str,
        spared: Option<&Spared>,
    ) -> Result<Option<Count>, Trouble> {
        let options = spared.map(|_| TopOptionsBuilder::default().ps_args(COLUMNS).build());
        let call = self.docker.top_processes(container, options);
        match self.call("count of processes", call).await {
            Ok(found) => Ok(Count::of(&found, spared)),
            Err(Trouble::Refused(why)) if why.contains("is not running") => {
                Err(Trouble::Conflict(why))
            }
            Err(Trouble::Refused(why)) => {
                tracing::debug!(why, "processes cannot be counted");
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Whether an exec still runs.
    pub(super) async fn runs(&self, exec: &str) -> Result<bool, Trouble> {
        match self
            .call("look at an exec", self.docker.inspect_exec(exec))
            .await
        {
            Ok(found) => Ok(found.running == Some(true)),
            // Forgotten with a restart of its container.
            Err(Trouble::Missing(_) | Trouble::Conflict(_)) => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    /// Removes a container whatever its state is, with its volumes. Fine when it is gone.
    pub(super) async fn remove(&self, container: &str) -> Result<(), Trouble> {
        let options = RemoveContainerOptionsBuilder::default()
            .v(true)
            .force(true)
            .build();
        let call = self.docker.remove_container(container, Some(options));
        match self.slow("remove", call).await {
            // In conflict with another removal of the same: the other one does it.
            Ok(()) | Err(Trouble::Missing(_) | Trouble::Conflict(_)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    /// Containers in any state that carry one of our labels.
    pub(super) async fn ours(&self) -> Result<Vec<ContainerSummary>, Trouble> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&labelled())
            .build();
        self.call("list", self.docker.list_containers(Some(options)))
            .await
    }

    /// Volumes that carry one of our labels.
    pub(super) async fn our_volumes(&self) -> Result<Vec<Volume>, Trouble> {
        let options = ListVolumesOptionsBuilder::default()
            .filters(&labelled())
            .build();
        let call = self.docker.list_volumes(Some(options));
        let found = self.call("list of volumes", call).await?;
        Ok(found.volumes.unwrap_or_default())
    }
}

fn labelled() -> HashMap<&'static str, Vec<&'static str>> {
    HashMap::from([("label", vec![super::owner::LABEL])])
}

/// A deadline around anything.
pub(super) async fn limited<T>(
    what: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Trouble::Late(what, limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: String, call: Duration) -> EngineSettings {
        EngineSettings {
            address: Some(address),
            call,
            ..EngineSettings::default()
        }
    }

    #[test]
    fn an_engine_that_is_not_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none.sock");
        let address = format!("unix://{}", path.display());
        let failure = Engine::connect(settings(address, Duration::from_secs(5))).unwrap_err();
        assert_eq!(failure.code, "GT-DOCKER-GONE");
        assert!(failure.kind.is_retryable());
    }

    #[test]
    fn an_engine_that_says_nothing_is_late() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mute.sock");
        let _mute = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let address = format!("unix://{}", path.display());
        let failure = Engine::connect(settings(address, Duration::from_millis(50))).unwrap_err();
        assert_eq!(failure.code, "GT-DOCKER-TIMEOUT");
    }

    #[test]
    fn an_engine_that_hangs_up_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rude.sock");
        let rude = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let address = format!("unix://{}", path.display());
        std::thread::scope(|scope| {
            scope.spawn(|| drop(rude.accept()));
            let failure = Engine::connect(settings(address, Duration::from_secs(5))).unwrap_err();
            assert_eq!(failure.code, "GT-DOCKER-GONE", "{failure}");
            // Where the client asks again, nobody is there.
            drop(std::os::unix::net::UnixStream::connect(&path));
        });
    }

    #[actix::test]
    async fn waiting_works_where_a_runtime_is_at_work() {
        assert_eq!(wait(async { 7 }).unwrap(), 7);
    }
}
