"""The same weights through every framework, judged by one reference; owns the command `cbam`."""
