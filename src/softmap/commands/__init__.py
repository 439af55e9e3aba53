"""The commands, one a file; `softmap.cli` puts them together."""
