"""The map in a real browser, next to other viewers of attention."""
