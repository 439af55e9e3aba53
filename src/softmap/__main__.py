"""``python -m softmap``: the command line."""

from softmap.cli import main

main(prog_name="softmap")
