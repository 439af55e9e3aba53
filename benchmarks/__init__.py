"""Each module measures one thing and prints it, next to a named peer in the same run."""
