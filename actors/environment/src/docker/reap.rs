//! What dead processes left in the engine is removed: containers in any state, with
//! their volumes. Networks are never made.

use super::client::{self, Engine, Trouble};
use super::owner::{Fate, LABEL, Owner};
use bollard::models::ContainerSummaryStateEnum as State;
use bollard::query_parameters::RemoveVolumeOptions;
use gametape_schemas::Failure;
use std::collections::HashMap;

/// What was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reaped {
    /// Containers.
    pub containers: usize,
    /// Volumes that had lost their container.
    pub volumes: usize,
}

/// Removes what owners that are dead left. Blocks.
///
/// # Errors
/// `GT-DOCKER-GONE`, `GT-DOCKER-TIMEOUT`. What cannot be removed is warned of and stays
/// for the next start.
pub fn reap(engine: &Engine) -> Result<Reaped, Failure> {
    let this = Owner::this();
    client::wait(async { sweep(engine, &this).await })?.map_err(Failure::from)
}

async fn sweep(engine: &Engine, this: &Owner) -> Result<Reaped, Trouble> {
    let mut reaped = Reaped::default();
    for container in engine.ours().await? {
        let Some(id) = container.id else { continue };
        let fate = fate(this, container.labels.as_ref());
        if !is_leftover(fate, container.state) {
            continue;
        }
        match engine.remove(&id).await {
            Ok(()) => reaped.containers += 1,
            Err(trouble @ (Trouble::Gone(_) | Trouble::Late(..))) => return Err(trouble),
            Err(trouble) => tracing::warn!(id, ?trouble, "a leftover container stays"),
        }
    }
    for volume in engine.our_volumes().await? {
        if fate(this, Some(&volume.labels)) != Fate::Dead {
            continue;
        }
        let call = engine
            .docker
            .remove_volume(&volume.name, None::<RemoveVolumeOptions>);
        match engine.call("removal of a volume", call).await {
            Ok(()) => reaped.volumes += 1,
            // Somebody else removed it.
            Err(Trouble::Missing(_)) => {}
            Err(trouble @ (Trouble::Gone(_) | Trouble::Late(..))) => return Err(trouble),
            Err(trouble) => {
                tracing::warn!(volume = volume.name, ?trouble, "a leftover volume stays");
            }
        }
    }
    Ok(reaped)
}

fn fate(this: &Owner, labels: Option<&HashMap<String, String>>) -> Fate {
    let owner = labels
        .and_then(|labels| labels.get(LABEL))
        .and_then(|label| Owner::parse(label));
    owner.map_or(Fate::Unknown, |owner| this.fate_now(&owner))
}

/// Whether a container is to go. One whose owner cannot be seen goes once it has ended:
/// a sandbox that is in use never has.
fn is_leftover(fate: Fate, state: Option<State>) -> bool {
    match fate {
        Fate::Dead => true,
        Fate::Alive => false,
        Fate::Unknown => matches!(state, Some(State::EXITED | State::DEAD)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_stays() {
        for state in [
            State::CREATED,
            State::RUNNING,
            State::EXITED,
            State::PAUSED,
            State::DEAD,
        ] {
            assert!(is_leftover(Fate::Dead, Some(state)));
            assert!(!is_leftover(Fate::Alive, Some(state)));
        }
        assert!(is_leftover(Fate::Unknown, Some(State::EXITED)));
        assert!(!is_leftover(Fate::Unknown, Some(State::RUNNING)));
        assert!(!is_leftover(Fate::Unknown, Some(State::CREATED)));
    }
}
