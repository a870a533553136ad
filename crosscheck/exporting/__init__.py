"""Files that run without this project: a network written by a framework, and run by its runtime."""
