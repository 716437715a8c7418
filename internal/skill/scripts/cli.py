"""python -m scripts.cli restore|build|compose|hash|inspect ...: runs clayer with these arguments.

Written by clayer init skill.
"""

from __future__ import annotations

import os
import sys
from typing import Sequence

from .layer_cache import ClayerError, environment, find


def without_token(args: Sequence[str]) -> tuple[list[str], str | None]:
    """Take --token out of args: it reaches clayer by a variable, which other users cannot read."""
    rest, token = list(args), None
    end = rest.index("--") if "--" in rest else len(rest)
    for i in range(end - 1, -1, -1):
        if rest[i].startswith("--token="):
            value = rest.pop(i)[len("--token=") :]
            token = token or value
            end -= 1
        elif rest[i] == "--token" and i + 1 < end:
            token = token or rest[i + 1]
            del rest[i : i + 2]
            end -= 2
    return rest, token


def main() -> None:
    args, token = without_token(sys.argv[1:])
    try:
        program = find()
    except ClayerError as e:
        sys.exit(str(e))
    os.execve(program, [program, *args], environment(token))


if __name__ == "__main__":
    main()
