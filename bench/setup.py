"""An environment with every server that bench.web measures and that is in Python, and word of those that are not.

    python3 -m bench.setup /tmp/bench
    /tmp/bench/bin/python -m bench.web --list

The versions are those of bench/requirements.txt. uWSGI is compiled: it takes gcc and the headers of Python. Nothing
outside the folder is changed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ("nginx", "wrk", "gcc", "libfcgi-dev", "pkg-config", "php-fpm", "golang-go")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.setup", description="Install what bench.web measures.")
    parser.add_argument("folder", type=Path, help="where the new environment is to be")
    folder = parser.parse_args().folder
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # One after the other: those that cannot be had for this Python are left out, and the rest is measured.
    wanted = (ROOT / "bench" / "requirements.txt").read_text().splitlines()
    failed = [
        line
        for line in wanted
        if line.strip() and not line.startswith("#") and subprocess.run([*pip, line], check=False).returncode
    ]
    for line in failed:
        print(f"not installed: {line}", file=sys.stderr)
    print(f"As root on Debian, for the rest: apt-get install --no-install-recommends {' '.join(DEBIAN)}")
    print(f"And then: {python} -m bench.web --list")


if __name__ == "__main__":
    main()
