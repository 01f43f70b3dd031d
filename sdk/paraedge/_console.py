"""What the console script ``paraedge`` starts: the command line, or one line about the extra that it needs."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line; without the extra ``cli``, say so and exit with 2."""
    try:
        from paraedge.cli.main import main as command_line
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write("Error: the command line needs click, which is not installed; pip install 'paraedge[cli]'\n")
        sys.exit(2)
    command_line()
