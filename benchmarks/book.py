"""How long `make book` takes: cold, again, after a change of a page's text, of a chapter, of one of its records.

    python benchmarks/book.py --out results/bench/book.json

Each is a whole command in a clone of the repository, one after the other; the environment is there before. `chapters`
says how many of them ran.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from histotransfer.files import write_json

ROOT = Path(__file__).parents[1]
CHANGES = {  # what is changed before a build, and the file that a blank line, or a space, is added to
    "cold": "",
    "again": "",
    "a page": "book/glossary.md",
    "a chapter": "notebooks/03_se_densenet.py",
    "a record": "results/bench/stain.json",
}
EXECUTED = re.compile(r"^\S+ +[\d.]+ s  \(", re.M)


def built(folder: Path) -> dict[str, float]:
    """Seconds of one build, and how many chapters it ran."""
    command = [str(Path(sys.executable).with_name("histotransfer")), "book", "build"]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(folder / "src")}, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return {"seconds": seconds, "chapters": len(EXECUTED.findall(done.stdout))}


def race(source: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Every build of `CHANGES` whose file is there, in a clone of the source."""
    subprocess.run(["git", "clone", "--quiet", "--no-local", str(source), str(folder)], check=True)
    builds = {}
    for what, name in CHANGES.items():
        if name and not (folder / name).is_file():
            continue
        if name:
            with (folder / name).open("a", encoding="utf-8") as file:
                file.write(" \n")
        builds[what] = built(folder)
        print(f"{what}: {builds[what]['seconds']:.0f} s, {builds[what]['chapters']} chapters ran", flush=True)
    return builds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT, help="a repository")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/book.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        builds: dict[str, Any] = race(options.source, Path(name, "clone"))
    write_json(options.out, {"builds": builds, "cores": os.cpu_count(), "load": os.getloadavg()})


if __name__ == "__main__":
    main()
