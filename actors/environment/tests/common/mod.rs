//! A room with a provisioned package, and short ways to ask it.

#![allow(dead_code)]

use actix::prelude::*;
use gametape_environment::{EnvironmentActor, EnvironmentOptions};
use gametape_schemas::message::*;
use gametape_schemas::{EnvironmentRecipe, PinnedPackage, SandboxId};

pub fn recipe() -> EnvironmentRecipe {
    EnvironmentRecipe {
        package: PinnedPackage {
            name: "toolz".into(),
            version: "1.2.0".into(),
            sha256: "9667a038e9d6ecba37995e26cb2f59ec6420b6ad8dd9677de59db9b956b08490".into(),
        },
        requirements: vec![
            "iniconfig==2.3.1 --hash=sha256:9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7".into(),
            "packaging==26.3 --hash=sha256:d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c".into(),
            "pluggy==1.7.0 --hash=sha256:7dd7b0d8832ba3cb632c306926ded123429211b83641b35dc5c41ad2d34f9bec".into(),
            "pygments==2.21.0 --hash=sha256:2363c69b61c4a97c838da3b130dcd6468f4848992b21a82f2a63ec34377137d9".into(),
            "pytest==9.2.0 --hash=sha256:07acdcf88ec174f907dc01af70bf52d49b014bbab03faeeade31c96b18c2e588".into(),
        ],
        source_root: ".".into(),
        code: vec!["toolz".into()],
        tests: vec!["toolz/tests".into()],
        skip_tests: vec![],
        layout: 0,
        python: None,
        source: None,
        setup: Vec::new(),
    }
}

pub fn cache() -> std::path::PathBuf {
    std::env::var_os("GAMETAPE_CACHE")
        .map(std::path::PathBuf::from)
        .or_else(|| {
            std::env::var_os("XDG_CACHE_HOME").map(|d| std::path::PathBuf::from(d).join("gametape"))
        })
        .or_else(|| {
            std::env::var_os("HOME").map(|d| std::path::PathBuf::from(d).join(".cache/gametape"))
        })
        .unwrap_or_else(std::env::temp_dir)
}

/// A room with an open environment, or a loud skip.
pub async fn room(test: &str) -> Option<(Addr<EnvironmentActor>, Provisioned)> {
    if let Err(failure) = gametape_environment::probe::require(&gametape_environment::probe()) {
        eprintln!("SKIPPED: {test}: {failure}");
        return None;
    }
    let options = match EnvironmentOptions::usual(cache(), 2) {
        Ok(options) => options,
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            return None;
        }
    };
    let room = EnvironmentActor::new(options).start();
    match room.send(Provision { recipe: recipe() }).await.unwrap() {
        Ok(provisioned) => Some((room, provisioned)),
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            None
        }
    }
}

pub async fn open(room: &Addr<EnvironmentActor>, env: &Provisioned) -> SandboxId {
    room.send(OpenSandbox {
        environment: env.environment.clone(),
        label: "test".into(),
        patches: vec![],
        hidden_paths: vec!["toolz/tests/test_itertoolz.py".into()],
        history: History::None,
    })
    .await
    .unwrap()
    .unwrap()
}

pub async fn run(room: &Addr<EnvironmentActor>, at: &SandboxId, argv: &[&str]) -> ExecOutcome {
    limited(room, at, argv, 20_000).await
}

pub async fn limited(
    room: &Addr<EnvironmentActor>,
    at: &SandboxId,
    argv: &[&str],
    ms: u64,
) -> ExecOutcome {
    room.send(Exec {
        sandbox: at.clone(),
        argv: argv.iter().map(|s| (*s).to_owned()).collect(),
        stdin: None,
        env: vec![],
        timeout_ms: ms,
        output_cap: 4_000,
    })
    .await
    .unwrap()
    .unwrap()
}
