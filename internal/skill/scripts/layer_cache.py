"""Finds the program clayer, installs it if it is missing, and runs it.

clayer has the snapshots, in GitHub Releases and other stores: see clayer cache --help.
Written by clayer init skill.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from typing import Dict, Sequence

VERSION, PINS, PROGRAM = "", "", ""
DEFAULTS: Dict[str, str] = {}


class ClayerError(RuntimeError):
    """What clayer printed about a failure, and its exit code."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def environment(token: str | None = None) -> dict[str, str]:
    """Return the variables that clayer runs with: those of the session come before the skill's."""
    env = {**DEFAULTS, **os.environ}
    if token:
        env["CLAYER_TOKEN"] = token  # not in argv, which other users can read
    return env


def find() -> str:
    """Return the path of clayer, which is installed if it is missing."""
    program = shutil.which("clayer")
    if program:
        return program
    try:
        from container_layer import find_clayer  # of the wheel

        return find_clayer()
    except (ImportError, FileNotFoundError):
        pass
    here = os.path.dirname(os.path.abspath(__file__))
    if VERSION:
        directory = os.environ.get("CLAYER_INSTALL_DIR") or os.path.join(os.environ.get("HOME") or "/root", ".local", "bin")
        install = ["sh", os.path.join(here, "install.sh"), VERSION, PINS, directory]
        done = subprocess.run(install, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace", check=False)
        if done.returncode:
            raise ClayerError(done.stderr.strip())
        return done.stdout.strip()
    path = os.path.normpath(os.path.join(os.path.dirname(here), PROGRAM or "clayer"))
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return path
    raise ClayerError(
        f"clayer: no clayer is on PATH, nor is there {path}; the build that wrote this skill is no release, and can't be downloaded\n"
        "hint: put clayer on PATH, or write the skill for a release: clayer init skill --release v1.2.3"
    )


def run(args: Sequence[str], token: str | None = None) -> str:
    """Run clayer and return what it prints to stdout; its progress goes to stderr."""
    with tempfile.TemporaryFile() as out:
        log: list[str] = []
        with subprocess.Popen([find(), *args], env=environment(token), stdout=out, stderr=subprocess.PIPE, encoding="utf-8", errors="replace") as process:
            assert process.stderr is not None
            for line in process.stderr:
                log.append(line)
                sys.stderr.write(line)
        if process.returncode:
            # The error is the last message, which may have several lines.
            first = max((i for i, line in enumerate(log) if line.startswith("clayer: ")), default=0)
            text = "".join(log[first:]).strip()
            raise ClayerError(text or f"clayer: exit code {process.returncode}", process.returncode)
        out.seek(0)
        return out.read().decode("utf-8", "replace")


if __name__ == "__main__":  # for uv_shim.sh
    try:
        print(find())
    except ClayerError as e:
        sys.exit(str(e))
