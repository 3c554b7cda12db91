//! What a container is made of: its limits, its file systems, its labels. Pure.

use super::owner::{ATTEMPT, LABEL, Owner, RUN};
use super::settings::{Bounds, Space};
use bollard::models::*;
use std::collections::HashMap;

/// The uid and gid of commands. Never root, and nobody of this machine's.
pub const AGENT: u32 = 61_000;
/// The user of the process that keeps the container open: killing everything of the
/// agent's must not end it.
const KEEPER: &str = "65534:65534";
/// The user that keeps an image open that is used as it is. Nobody's in any image, so
/// that what runs there can kill neither it nor process 1.
const OTHER_KEEPER: &str = "61001:61001";
/// What root may do in an image that is used as it is: work with files of others, and be
/// somebody else. Less than the engine gives by itself.
const CAPABILITIES: [&str; 6] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "SETGID",
    "SETUID",
];
/// Where the shell around a command leaves what an exit code cannot say.
pub const NOTES: &str = "/run/gametape";
/// `docker-init` and the process that keeps the container open.
pub const IDLE_PROCESSES: u64 = 2;

/// What is said of a container in its labels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Labels {
    /// The process that it belongs to.
    pub owner: Owner,
    /// The run.
    pub run: String,
    /// The attempt, or what else it is for.
    pub attempt: String,
}

impl Labels {
    fn map(&self) -> HashMap<String, String> {
        HashMap::from([
            (LABEL.to_owned(), self.owner.label()),
            (RUN.to_owned(), self.run.clone()),
            (ATTEMPT.to_owned(), self.attempt.clone()),
        ])
    }
}

/// The request for a sandbox's container.
pub fn body(image: &str, place: &str, bounds: &Bounds, labels: &Labels) -> ContainerCreateBody {
    let lifetime = format!("exec sleep {}", bounds.lifetime_s);
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: Some("sandbox".to_owned()),
        user: Some(KEEPER.to_owned()),
        entrypoint: Some(vec!["/bin/sh".into(), "-c".into(), lifetime]),
        cmd: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        labels: Some(labels.map()),
        network_disabled: Some(true),
        // A user's image may bring a check that runs something beside us.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            // Reaps what commands leave.
            init: Some(true),
            network_mode: Some("none".to_owned()),
            memory: Some(mib(bounds.memory_mib)),
            // The same: no swap.
            memory_swap: Some(mib(bounds.memory_mib)),
            nano_cpus: i64::try_from(bounds.cpu_milli.saturating_mul(1_000_000)).ok(),
            pids_limit: i64::try_from(bounds.processes).ok(),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            readonly_rootfs: Some(true),
            auto_remove: Some(false),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            // Output of commands goes to us, never into the engine's files.
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            ulimits: Some(vec![
                ulimit("fsize", bounds.file_mib << 20),
                ulimit("nofile", bounds.open_files),
                ulimit("core", 0),
            ]),
            tmpfs: Some(HashMap::from([
                ("/tmp".to_owned(), tmpfs("exec,mode=1777", bounds.tmp)),
                ("/dev/shm".to_owned(), tmpfs("noexec,mode=1777", bounds.shm)),
                (
                    NOTES.to_owned(),
                    tmpfs(
                        &format!("noexec,mode=0700,uid={AGENT},gid={AGENT}"),
                        Space { mib: 1, inodes: 16 },
                    ),
                ),
            ])),
            mounts: Some(vec![repository(place, bounds.repository, labels)]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// The user and the group of commands, as the engine is told.
pub fn agent() -> String {
    format!("{AGENT}:{AGENT}")
}

/// The request for a container in which an image is used as it is: its files writable,
/// its own users. `disk_mib` limits what is written, where the engine can.
pub fn as_is(
    image: &str,
    bounds: &Bounds,
    labels: &Labels,
    disk_mib: Option<u64>,
) -> ContainerCreateBody {
    let mut body = body(image, "/", bounds, labels);
    body.user = Some(OTHER_KEEPER.to_owned());
    if let Some(host) = &mut body.host_config {
        host.readonly_rootfs = Some(false);
        host.mounts = None;
        host.cap_add = Some(CAPABILITIES.map(str::to_owned).to_vec());
        host.storage_opt = disk_mib.map(|mib| HashMap::from([("size".into(), format!("{mib}m"))]));
        // `/tmp` is the image's. Notes are written by whoever runs commands there.
        let notes = tmpfs("noexec,mode=1777", Space { mib: 1, inodes: 16 });
        host.tmpfs = Some(HashMap::from([
            ("/dev/shm".to_owned(), tmpfs("noexec,mode=1777", bounds.shm)),
            (NOTES.to_owned(), notes),
        ]));
    }
    body
}

/// The request for a container whose files are looked at and that never runs.
pub fn never_started(image: &str, owner: &Owner) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/never".to_owned()]),
        network_disabled: Some(true),
        labels: Some(HashMap::from([(LABEL.to_owned(), owner.label())])),
        ..ContainerCreateBody::default()
    }
}

/// The repository lies in memory, in a volume without a name: its size and its inodes
/// have a limit, the engine's archives reach it though the rest is read-only, and it goes
/// with the container.
fn repository(place: &str, space: Space, labels: &Labels) -> Mount {
    let options = format!(
        "nosuid,nodev,mode=0755,uid={AGENT},gid={AGENT},size={}m,nr_inodes={}",
        space.mib, space.inodes
    );
    Mount {
        target: Some(place.to_owned()),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            labels: Some(labels.map()),
            driver_config: Some(MountVolumeOptionsDriverConfig {
                name: Some("local".to_owned()),
                options: Some(HashMap::from([
                    ("type".to_owned(), "tmpfs".to_owned()),
                    ("device".to_owned(), "tmpfs".to_owned()),
                    ("o".to_owned(), options),
                ])),
            }),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

fn tmpfs(options: &str, space: Space) -> String {
    format!(
        "rw,nosuid,nodev,{options},size={}m,nr_inodes={}",
        space.mib, space.inodes
    )
}

fn ulimit(name: &str, value: u64) -> ResourcesUlimits {
    let value = i64::try_from(value).ok();
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: value,
        hard: value,
    }
}

fn mib(value: u64) -> i64 {
    i64::try_from(value.saturating_mul(1 << 20)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_as_it_is_has_every_limit_too() {
        let labels = Labels {
            owner: Owner::this(),
            run: "r".into(),
            attempt: "a".into(),
        };
        let bounds = Bounds::default();
        let usual = body("sha256:1", "/testbed", &bounds, &labels);
        let as_is = as_is("sha256:1", &bounds, &labels, Some(7));
        assert_eq!(as_is.labels, usual.labels);
        assert_eq!(as_is.network_disabled, Some(true));
        assert_ne!(as_is.user, usual.user);
        let (host, usual) = (as_is.host_config.unwrap(), usual.host_config.unwrap());
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(
            (
                host.memory,
                host.memory_swap,
                host.pids_limit,
                host.nano_cpus
            ),
            (
                usual.memory,
                usual.memory_swap,
                usual.pids_limit,
                usual.nano_cpus
            )
        );
        assert_eq!(
            (&host.ulimits, &host.security_opt),
            (&usual.ulimits, &usual.security_opt)
        );
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        let added = host.cap_add.unwrap();
        assert!(
            !added
                .iter()
                .any(|cap| cap.contains("KILL") || cap.contains("SYS"))
        );
        assert!(host.privileged.is_none() && host.binds.is_none() && host.mounts.is_none());
        assert_eq!(host.readonly_rootfs, Some(false));
        assert_eq!(host.storage_opt.unwrap()["size"], "7m");
    }

    #[test]
    fn a_container_has_every_limit_and_every_label() {
        let owner = Owner::this();
        let labels = Labels {
            owner: owner.clone(),
            run: "r".into(),
            attempt: "a".into(),
        };
        let body = body("sha256:1", "/testbed", &Bounds::default(), &labels);
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        assert_eq!(host.memory, host.memory_swap);
        assert_eq!(host.memory, Some(4096 << 20));
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert!(host.cap_add.is_none() && host.binds.is_none() && host.privileged.is_none());
        assert_eq!((host.readonly_rootfs, host.init), (Some(true), Some(true)));
        assert_eq!(
            (host.nano_cpus, host.pids_limit),
            (Some(2_000_000_000), Some(128))
        );
        for options in host.tmpfs.unwrap().values() {
            assert!(
                options.contains("size=") && options.contains("nr_inodes="),
                "{options}"
            );
        }
        assert_eq!(body.labels.unwrap()[LABEL], owner.label());
        let mount = &host.mounts.unwrap()[0];
        assert!(
            mount.source.is_none(),
            "a volume without a name goes with its container"
        );
        assert_ne!(body.user.as_deref(), Some("61000:61000"));
    }
}
