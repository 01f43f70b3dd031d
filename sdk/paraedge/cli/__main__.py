"""``python -m paraedge.cli``: the command line where no script is on the path."""

from paraedge.cli.main import main

main()
