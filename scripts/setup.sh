#!/usr/bin/env bash
# Brings what gametape needs: tools, libtorch, the default model. Idempotent, resumable.
#
#   scripts/setup.sh            everything that is missing; nothing when all is there
#   scripts/setup.sh --verify   also check every checksum in the cache
#
# What it writes: the user's cache ($GAMETAPE_CACHE, else $XDG_CACHE_HOME/gametape, else
# ~/.cache/gametape) and .cargo/config.toml of this clone (git-ignored), after which plain
# `cargo build` and `cargo test` work.
#
# Exit codes: 0 done, 2 wrong use, 3 something is missing on this machine, 5 no disk space,
# 7 a download or a checksum failed, 130 interrupted.
set -euo pipefail

readonly TORCH=2.11
readonly LIBTORCH_DIR=libtorch/2.11.0-cpu-x86_64
readonly MODEL_FILE=models/b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53/SmolLM2-135M-Instruct.Q4_1.gguf
readonly MODEL_BYTES=98362432
readonly STEPS=6
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

step=0
began=$SECONDS
next() { step=$((step + 1)); printf '[%d/%d] %s' "$step" "$STEPS" "$1"; }
done_() { printf ': %s\n' "$1"; }
note() { printf '      %s\n' "$1"; }
fail() { # code, what is wrong, what to do
  printf '\nerror: %s\n  help: %s\n' "$2" "$3" >&2
  exit "$1"
}
stop() { # exit code of what was called; it has said why, save for an interruption
  [ "$1" != 130 ] || printf '\nset-up was interrupted; type the same command, it goes on where it was\n' >&2
  exit "$1"
}
trap 'stop 130' INT TERM

verify=false
case "${1:-}" in
  '') ;;
  --verify) verify=true ;;
  -h | --help)
    sed -n '2,12p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'
    exit 0
    ;;
  *) fail 2 "unknown argument: $1" "scripts/setup.sh [--verify]" ;;
esac

# ---------------------------------------------------------------- [1] tools

have() { command -v "$1" >/dev/null 2>&1; }
at_least() { # found, wanted: dotted numbers
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}
python_ok() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
venv_ok() { python3 -c 'import venv, ensurepip' 2>/dev/null; }

missing_tools() { # names of Debian packages, one a line
  have git || echo git
  python_ok || echo python3
  venv_ok || echo python3-venv
  have g++ || have clang++ || echo g++
  have bwrap || echo bubblewrap
}

install_hint() { # Debian packages -> the command for this machine
  local names=$1
  if have apt-get; then
    echo "sudo apt-get install -y $names"
  elif have dnf; then
    echo "sudo dnf install -y ${names//g++/gcc-c++}" | sed 's/python3-venv/python3-pip/'
  elif have pacman; then
    echo "sudo pacman -S --needed ${names//g++/gcc}" | sed 's/python3-venv/python-pip/; s/python3/python/'
  elif have zypper; then
    echo "sudo zypper install -y ${names//g++/gcc-c++}" | sed 's/python3-venv/python3-pip/'
  else
    echo "your system's package manager to install: $names"
  fi
}

tools() {
  next tools
  [ "$(uname -s)" = Linux ] || fail 3 "gametape runs on Linux (its sandboxes are Linux namespaces)" \
    "use a Linux machine, a virtual machine or WSL 2"
  local missing
  missing=$(missing_tools | tr '\n' ' ' | sed 's/ $//')
  if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && have apt-get; then
    printf ': installing %s\n' "$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of names
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } 2>&1 |
      sed 's/^/      /' || fail 7 "apt-get could not install: $missing" \
      "see its message above; then type the same command again"
    hash -r
    missing=$(missing_tools | tr '\n' ' ' | sed 's/ $//')
    printf '      tools'
  fi
  if [ -n "$missing" ]; then
    if have python3 && ! python_ok; then
      fail 3 "Python 3.11 or newer is needed; python3 here is $(python3 -V 2>&1 | cut -d' ' -f2)" \
        "install a newer Python and put it first on the PATH as python3, then run this again"
    fi
    fail 3 "missing on this machine: $missing" "type: $(install_hint "$missing")   and run this again"
  fi

  if ! have cargo || ! have rustc; then
    fail 3 "Rust is missing" \
      "install Rust 1.88 or newer with rustup, then open a new shell and run this again"
  fi
  local rust wanted
  rust=$(rustc --version | cut -d' ' -f2)
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
  at_least "${rust%%-*}" "$wanted" || fail 3 "Rust $wanted or newer is needed; rustc here is $rust" \
    "type: rustup update stable   (a distribution's own Rust is often older)"
  done_ "Rust $rust, git $(git --version | cut -d' ' -f3), Python $(python3 -V | cut -d' ' -f2), $(bwrap --version)"
}

# ---------------------------------------------------------------- [2] sandboxes

sandboxes() {
  next sandboxes
  local probe=(bwrap --unshare-user --unshare-pid --unshare-net --unshare-ipc --ro-bind / / --proc /proc --dev /dev true)
  if "${probe[@]}" 2>/dev/null; then
    done_ "bubblewrap opens one"
    return
  fi
  done_ "bubblewrap cannot open one: $("${probe[@]}" 2>&1 | tail -n 1)"
  note "The build works, the loop will not. What usually helps (one of these, as root):"
  note "  sysctl -w kernel.unprivileged_userns_clone=1"
  note "  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
  note "  in a container: --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
}

# ---------------------------------------------------------------- [3] libtorch

# Version of the libtorch in a directory; nothing when there is none.
libtorch_version() {
  local header
  [ -f "$1/lib/libtorch_cpu.so" ] && [ -f "$1/include/torch/csrc/api/include/torch/torch.h" ] || return 0
  if [ -f "$1/build-version" ]; then
    cat "$1/build-version"
    return
  fi
  for header in "$1/include/torch/headeronly/version.h" "$1/include/torch/csrc/api/include/torch/version.h"; do
    [ -f "$header" ] || continue
    sed -n 's/^#define TORCH_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\).*/\2/p' "$header" | paste -sd.
    return
  done
}

# "version directory cuda" of python3's PyTorch, without importing it (seconds).
python_torch() {
  python3 - <<'PYTHON' 2>/dev/null || true
import importlib.util, pathlib, re
spec = importlib.util.find_spec("torch")
home = pathlib.Path(spec.origin).parent
text = (home / "version.py").read_text()
version = re.search(r"__version__ = '([^']+)'", text)[1]
cuda = re.search(r"^cuda.* = '([^']+)'", text, re.M)
print(version, "cuda-" + cuda[1] if cuda else "cpu", home)
PYTHON
}

gpu_name() { have nvidia-smi && nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1; }

# The libtorch in the cache is whole: every file of its manifest has its size.
cached_libtorch_ok() {
  local home=$cache/$LIBTORCH_DIR sum size name
  [ -f "$home/MANIFEST" ] && [ -f "$home/build-version" ] || return 1
  while read -r sum size name; do
    [ -n "$sum" ] && [ "$(stat -c %s "$home/$name" 2>/dev/null)" = "$size" ] || return 1
  done <"$home/MANIFEST"
}

libtorch() {
  next libtorch
  local version kind home gpu
  gpu=$(gpu_name || true)
  if [ -n "${LIBTORCH:-}" ]; then
    version=$(libtorch_version "$LIBTORCH")
    case "$version" in
      $TORCH.*) ;;
      '') fail 3 "LIBTORCH is set to $LIBTORCH, where there is no libtorch" \
        "unset LIBTORCH, or point it at a libtorch $TORCH" ;;
      *) fail 3 "LIBTORCH is set to $LIBTORCH, which is version $version; gametape needs $TORCH" \
        "unset LIBTORCH, or point it at a libtorch $TORCH" ;;
    esac
    torch_home=$(cd "$LIBTORCH" && pwd)
    done_ "$version, from LIBTORCH ($torch_home)"
    return
  fi

  read -r version kind home < <(python_torch; echo) || true
  case "$version" in
    $TORCH.*)
      if [ -n "$(libtorch_version "$home")" ]; then
        # The directory itself, not LIBTORCH_USE_PYTORCH: that asks whichever python3 is
        # first on the PATH at build time, and builds torch-sys anew when another is.
        torch_home=$home
        done_ "$version ($kind), python3's PyTorch ($home)${gpu:+, GPU $gpu}"
        case "$gpu/$kind" in ?*/cpu) note "this PyTorch has no CUDA: the GPU is not used" ;; esac
        return
      fi
      ;;
  esac
  if [ -n "${LIBTORCH_USE_PYTORCH:-}" ]; then
    fail 3 "LIBTORCH_USE_PYTORCH is set, but python3 has PyTorch ${version:-none}; gametape needs $TORCH" \
      "unset LIBTORCH_USE_PYTORCH, or type: python3 -m pip install torch==$TORCH.0"
  fi

  torch_home=$cache/$LIBTORCH_DIR
  if cached_libtorch_ok; then
    done_ "2.11.0 for the CPU, in the cache"
  else
    [ "$(uname -m)" = x86_64 ] || fail 3 "there is no ready libtorch for $(uname -m) here" \
      "type: python3 -m pip install torch==$TORCH.0   and run this again; it is found and used"
    done_ "2.11.0 for the CPU"
    provide libtorch
  fi
  if [ -n "$gpu" ]; then
    note "There is a GPU ($gpu), and this libtorch does not use it. To use it, type:"
    note "  python3 -m pip install torch==$TORCH.0   and run this again"
  fi
}

# ---------------------------------------------------------------- downloads

# One set-up at a time downloads; the others wait and find everything there.
provide() {
  space_for_downloads
  if ! lock -n; then
    note "another set-up is downloading into $cache; waiting for it"
    lock
  fi
  case "$1" in
    libtorch) cached_libtorch_ok || python3 "$root/scripts/setup/provide.py" libtorch "$cache" || stop $? ;;
    model) model_ok || python3 "$root/scripts/setup/provide.py" model "$cache" || stop $? ;;
  esac
  exec 9>&-
}

lock() { # the lock belongs to file descriptor 9 and dies with it
  exec 9>>"$cache/setup.lock"
  if have flock; then
    flock "$@" 9
  else
    python3 -c 'import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | (fcntl.LOCK_NB if sys.argv[1:] else 0))' "$@" 2>/dev/null
  fi
}

free_mib() { df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }'; }

space_for_downloads() {
  $space_checked && return
  space_checked=true
  local in_cache=600 in_target=0 target=${CARGO_TARGET_DIR:-$root/target} where
  [ -n "$torch_home" ] && [ "$torch_home" = "$cache/$LIBTORCH_DIR" ] && ! cached_libtorch_ok && in_cache=1900
  where=$root
  [ -d "$target" ] && where=$target
  [ -d "$target/debug" ] || in_target=4000
  # One file system or two?
  if [ "$(stat -c %d "$cache")" = "$(stat -c %d "$where")" ]; then
    in_cache=$((in_cache + in_target))
    in_target=0
  fi
  need "$cache" "$in_cache" "set GAMETAPE_CACHE to a directory on a larger disk"
  need "$where" "$in_target" "set CARGO_TARGET_DIR to a directory on a larger disk"
}

need() { # directory, MiB, advice
  local free
  free=$(free_mib "$1")
  [ "$free" -ge "$2" ] || fail 5 "$1 has $free MiB free; set-up and build need $2 MiB there" \
    "free some space or $3, then type the same command again"
}

# ---------------------------------------------------------------- [4] cargo

# .cargo/config.toml: where libtorch is, at build time and at run time. Only written when
# it differs, for a change of the linker's flags builds torch-sys (minutes) anew.
cargo_config() {
  next "cargo configuration"
  local file=$root/.cargo/config.toml temporary target version
  case "$torch_home" in
    *[,\"\\]*) fail 3 "the path $torch_home holds a comma, a quote or a backslash, which linkers do not take" \
      "set GAMETAPE_CACHE or LIBTORCH to a plainer path" ;;
  esac
  target=$(rustc -vV | sed -n 's/^host: //p')
  version=$(libtorch_version "$torch_home")
  mkdir -p "$root/.cargo"
  rm -f "$file".?????? # of an interrupted set-up
  temporary=$(mktemp "$file.XXXXXX")
  {
    echo '# Written by scripts/setup.sh; not tracked.'
    echo '[env]'
    echo "LIBTORCH = \"$torch_home\""
    echo "LD_LIBRARY_PATH = \"$torch_home/lib\""
    case "${version%%+*}" in
      2.11.0) ;;
      *) echo 'LIBTORCH_BYPASS_VERSION_CHECK = "1"' ;; # a later patch release of 2.11
    esac
    echo "[target.$target]"
    echo "rustflags = [\"-C\", \"link-arg=-Wl,-rpath,$torch_home/lib\"]"
  } >"$temporary"
  if cmp -s "$temporary" "$file"; then
    rm "$temporary"
    done_ "up to date"
  else
    chmod 644 "$temporary"
    local was=written
    [ -f "$file" ] && was="changed (torch-sys will be built anew: minutes)"
    mv "$temporary" "$file"
    done_ "$was"
  fi
  if [ -n "${RUSTFLAGS:-}${CARGO_ENCODED_RUSTFLAGS:-}" ]; then
    note "RUSTFLAGS is set: cargo then ignores the flags in .cargo/config.toml; unset it for this project"
  fi
}

# ---------------------------------------------------------------- [5] model

model_ok() { [ "$(stat -c %s "$cache/$MODEL_FILE" 2>/dev/null)" = "$MODEL_BYTES" ]; }

model() {
  next "default model"
  if model_ok; then
    done_ "SmolLM2-135M-Instruct, in the cache"
  else
    done_ SmolLM2-135M-Instruct
    provide model
  fi
}

# ---------------------------------------------------------------- [6] end

finish() {
  next set-up
  if $verify; then
    printf '\n'
    python3 "$root/scripts/setup/provide.py" check "$cache" || stop $?
    printf '      set-up'
  fi
  # What interrupted set-ups left, unless one is at work.
  if [ -d "$cache/incoming" ] && lock -n; then
    rm -rf "$cache/incoming"
    exec 9>&-
  fi
  done_ "complete in $((SECONDS - began)) s; cache: $cache"
}

# ----------------------------------------------------------------

cache=${GAMETAPE_CACHE:-}
[ -n "$cache" ] || { [ -n "${XDG_CACHE_HOME:-}" ] && cache=$XDG_CACHE_HOME/gametape; } ||
  { [ -n "${HOME:-}" ] && cache=$HOME/.cache/gametape; } ||
  fail 3 "no place for the cache: HOME is not set" "set GAMETAPE_CACHE to a directory that you can write"
mkdir -p "$cache" 2>/dev/null || true
[ -w "$cache" ] || fail 3 "the cache directory $cache cannot be written" \
  "set GAMETAPE_CACHE to a directory that you can write"
cache=$(cd "$cache" && pwd)
torch_home=
space_checked=false

tools
sandboxes
libtorch
cargo_config
model
finish
