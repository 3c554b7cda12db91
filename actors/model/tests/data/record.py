#!/usr/bin/env python3
"""Records what transformers, PEFT, sentencepiece and gguf say, for the tests beside it.

    python3 record.py record [models|smollm2|text|training|adapter|blocks ...]
    python3 record.py check DIRECTORY...  do transformers and PEFT load what we saved?
    python3 record.py words FILE          are these tokens of these texts those of transformers?
    python3 record.py environment         where its virtual environment is; makes it

The virtual environment lies in the user's cache ($GAMETAPE_CACHE, else
$XDG_CACHE_HOME/gametape, else ~/.cache/gametape), named after a hash of
requirements.txt. The recorded files are small and committed: the tests need no Python.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def cache() -> Path:
    if "GAMETAPE_CACHE" in os.environ:
        return Path(os.environ["GAMETAPE_CACHE"])
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]) / "gametape"
    return Path.home() / ".cache" / "gametape"


def environment(make: bool = True) -> Path:
    """The interpreter of the virtual environment of this requirements.txt."""
    requirements = HERE / "requirements.txt"
    name = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    place = cache() / "parity" / name
    python = place / "bin" / "python"
    if not (place / "complete").exists() and make:
        print(f"making {place} (several GB with torch's CUDA packages)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(requirements)], check=True)
        (place / "complete").touch()
    return python


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in ("record", "check", "words", "environment"):
        print(__doc__, file=sys.stderr)
        return 2
    if sys.argv[1] == "environment":
        print(environment())
        return 0
    if os.environ.get("GAMETAPE_PARITY_INSIDE") != "1":
        command = [str(environment()), str(Path(__file__).resolve()), *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | {"GAMETAPE_PARITY_INSIDE": "1", "CUDA_VISIBLE_DEVICES": ""}).returncode
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    if sys.argv[1] == "check":
        import check
        return max(check.run(Path(directory)) for directory in sys.argv[2:])
    if sys.argv[1] == "words":
        import words
        return words.compare(Path(sys.argv[2]), cache())
    import recorders
    wanted = sys.argv[2:] or list(recorders.ALL)
    for name in wanted:
        recorders.ALL[name](HERE, cache())
        print("recorded", name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
