//! A repository that claims to be larger than it can be: sparse files, which the engine's
//! archive would spell out zero by zero. Looked at with programs inside, without them.

use super::archive::{Found, Kind, Reader};
use super::client::{Trouble, limited};
use super::exec::{self, At, Order};
use super::tree::Tree;

/// Names of files that are too large to be shown (more than 8192 blocks: 4 MiB).
const LARGE: &str = "find . -xdev -type f -size +8192 -print0";
/// Everything else as an archive.
const REST: &str =
    "find . -xdev ! \\( -type f -size +8192 \\) -print0 | tar -c --null --no-recursion -T - -f -";

/// The tree, with large files as names only. What the agent itself cannot read is not
/// in it.
///
/// # Errors
/// The engine's; more than `most` bytes even so.
pub async fn look(at: At<'_>, place: &str, most: u64) -> Result<Tree, Trouble> {
    let engine = at.engine;
    let cap = usize::try_from(most).unwrap_or(usize::MAX);
    let order = |script: &str| Order {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: Vec::new(),
        directory: place,
        stdin: None,
        timeout: engine.settings.slow,
        output_cap: cap,
    };
    let limit = engine.settings.slow * 2;
    limited("look at sparse files", limit, async {
        let large = exec::run(at, order(LARGE)).await?;
        let rest = exec::run(at, order(REST)).await?;
        let (Some(large), Some(rest)) = (large.stdout.whole(), rest.stdout.whole()) else {
            return Err(Trouble::Refused("the repository is too large".to_owned()));
        };
        let mut tree = Tree::default();
        let mut reader = Reader::new(crate::tree::MAX_FILE);
        reader
            .push(&rest, &mut |found| tree.found(found))
            .and_then(|()| reader.finish())
            .map_err(Trouble::Refused)?;
        for path in large
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
        {
            tree.found(Found {
                path: path.to_vec(),
                kind: Kind::File(None),
                mode: 0o644,
            });
        }
        Ok(tree)
    })
    .await
}
