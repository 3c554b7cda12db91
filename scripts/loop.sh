#!/usr/bin/env bash
# The main job in one command: set-up, build, and the self-improvement loop.
#
#   scripts/loop.sh                     the default profile, into ./gametape-run
#   scripts/loop.sh --profile smoke     a tiny random model through the same path, minutes
#   scripts/loop.sh --run DIR …         anything else that `gametape loop` takes
#
# Interrupted at any moment, the same command goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

scripts/setup.sh
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS # they would replace the flags that set-up wrote

target=${CARGO_TARGET_DIR:-$root/target}
if [ -x "$target/debug/gametape" ]; then
  echo "[build] what has changed"
else
  echo "[build] the first build compiles libtorch's bindings (C++): some minutes"
fi
cargo build --locked --bin gametape

cd "${OLDPWD:-$root}" # where the person is: relative paths in the arguments are theirs
exec "$target/debug/gametape" loop "$@"
