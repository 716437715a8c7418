"""container-layer: installs the command clayer."""

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
