"""container-layer: installs the command clayer, and has the skill of that name.

This directory is the skill: SKILL.md, and scripts with the interface of container-layer.

    from container_layer.scripts.containerfile import ContainerLayer, compose
    python -m container_layer.scripts.cli restore Containerfile --repo owner/repo

With skill_dir() on sys.path, or in PYTHONPATH, the package is called scripts, as it was.
"""

import os
import sys
import sysconfig


def find_clayer() -> str:
    """Return the path of the program that this package installed."""
    for scheme in (None, os.name + "_user"):
        scripts = sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts")
        path = os.path.join(scripts, "clayer")
        if os.path.isfile(path):
            return path
    # pip install --target puts it beside the module.
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin", "clayer")
    if os.path.isfile(path):
        return path
    raise FileNotFoundError("clayer is not where " + sys.executable + " has its scripts: reinstall container-layer")


def skill_dir() -> str:
    """Return the directory with SKILL.md and scripts."""
    return os.path.dirname(os.path.abspath(__file__))
