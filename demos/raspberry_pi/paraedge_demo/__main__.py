"""``python -m paraedge_demo``."""

from paraedge_demo._console import main

main()
