"""How long a user waits: from the command to the first line of training progress.

    python -m experiments.studies.startup

Starts `run.py agent=es env=CarRacing` in a folder of its own, several times, waits for
its first line of progress and stops it. The first start is with an empty cache, so that
it makes the tracks; the others find them on the disk. Also times `import iap`. Prints a
table with the spread and writes startup.csv. Run it on an idle machine.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def first_progress(folder: Path, cache: Path) -> float:
    """Seconds from the command to its first line that reports an iteration.

    Raises:
      SystemExit: the command ended without one.
    """
    command = [sys.executable, "run.py", "agent=es", "env=CarRacing", f"root={folder}"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("generation "):
                elapsed = time.perf_counter() - began
                process.send_signal(signal.SIGINT)
                process.stdout.read()
                return elapsed
    sys.exit(f"{' '.join(command)} ended without a line of progress.")


def importing() -> float:
    """Seconds that a fresh interpreter takes for `import iap`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import iap"], cwd=ROOT, check=True)
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table and writes startup.csv."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("startup.csv"))
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch, "cache")
        first = first_progress(Path(scratch, "0"), cache)
        again = [
            first_progress(Path(scratch, str(number)), cache)
            for number in range(1, arguments.repeats + 1)
        ]
    rows = [
        ("first start, tracks made", [first]),
        ("later start", again),
        ("import iap", [importing() for _ in range(arguments.repeats)]),
    ]
    print("| seconds to | min | median | max |\n|---|---|---|---|")
    for name, seconds in rows:
        ordered = sorted(seconds)
        middle = ordered[len(ordered) // 2]
        print(f"| {name} | {ordered[0]:.1f} | {middle:.1f} | {ordered[-1]:.1f} |")
    with open(arguments.out, "w", newline="") as file:
        csv.writer(file).writerows(
            [("what", "seconds"), *((name, s) for name, values in rows for s in values)]
        )


if __name__ == "__main__":
    main()
