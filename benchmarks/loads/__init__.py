"""One module for each load: it starts what it needs, drives it, and gives figures."""
