"""What the console script ``paraedge-demo`` starts: the demo, or one line about the extra that it needs."""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the demo; without the extra ``demo``, say so and exit with 2."""
    try:
        from paraedge_demo.main import main as demo
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write("Error: the demo needs click, which is not installed; pip install 'paraedge[demo,litert]'\n")
        sys.exit(2)
    demo()
