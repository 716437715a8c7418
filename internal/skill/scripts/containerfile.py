"""Restores, builds and composes layers: the functions of container-layer, over clayer.

What fails raises ClayerError with the text of clayer. Written by clayer init skill.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Sequence

from .layer_cache import ClayerError, run

__all__ = ["BuildResult", "ClayerError", "ContainerLayer", "compose", "content_hash"]

Path = "str | os.PathLike[str]"


@dataclass
class BuildResult:
    """A layer that is in the root. The variables are those of the whole composition."""

    success: bool
    snapshot_paths: list[str]  # always empty: clayer finds what a step changed
    content_hash: str
    errors: list[str] = field(default_factory=list)
    env_vars: dict[str, str] = field(default_factory=dict)


def _solve(args: list[str], files: list[str], options: list[str], token: str | None) -> list[BuildResult]:
    layers = json.loads(run([*args, "--json", *options, "--", *files], token))["layers"]
    env = json.loads(run(["env", "--json", *("--file=" + f for f in files)], token)) or {}
    os.environ.update(env)
    return [BuildResult(True, [], layer["key"][:16], env_vars=dict(env)) for layer in layers]


def _options(repo: str | None, salt: str) -> list[str]:
    return (["--repo=" + repo] if repo else []) + (["--salt=" + salt] if salt else [])


class ContainerLayer:
    """A layer: the Containerfile, the repository with its snapshots, and its name."""

    def __init__(self, containerfile_path: Path, cache_repo: str | None = None, gh_token: str | None = None, salt: str = "", layer_name: str | None = None) -> None:
        self.containerfile_path = os.fspath(containerfile_path)
        self.cache_repo = cache_repo
        self.gh_token = gh_token
        self.layer_name = layer_name
        self._options = _options(cache_repo, salt) + (["--name=" + layer_name] if layer_name else [])

    @property
    def tag(self) -> str:
        """The tag of its release."""
        return run(["hash", *self._options, "--", self.containerfile_path], self.gh_token).strip()

    def restore_or_build(self) -> BuildResult:
        """Restore what is cached, and build and store the rest."""
        return self._solve("restore")

    def build_and_push(self) -> BuildResult:
        """Build all steps again, and store them."""
        return self._solve("build")

    def build_only(self) -> BuildResult:
        """Build all steps again, and store nothing."""
        return self._solve("build", "--no-cache")

    def _solve(self, *args: str) -> BuildResult:
        return _solve(list(args), [self.containerfile_path], self._options, self.gh_token)[0]


def compose(
    containerfile_paths: Sequence[Path], cache_repo: str | None = None, gh_token: str | None = None, salt: str = "", names: Sequence[str | None] | None = None
) -> list[BuildResult]:
    """Restore or build several layers, in order; later layers win."""
    files = [os.fspath(p) for p in containerfile_paths]
    if names is not None and len(names) != len(files):
        raise ValueError(f"{len(names)} names for {len(files)} Containerfiles")
    options = [f"--name={name}:{file}" for name, file in zip(names or [], files) if name]
    return _solve(["compose"], files, _options(cache_repo, salt) + options, gh_token)


def content_hash(path: Path, extra_salt: str = "") -> str:
    """Return the key of a layer, as its release tag has it."""
    return json.loads(run(["hash", "--json", *_options(None, extra_salt), "--", os.fspath(path)]))["layers"][0]["key"][:16]
