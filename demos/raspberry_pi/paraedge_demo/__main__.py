"""``python -m paraedge_demo``."""

from paraedge_demo.main import main

main()
