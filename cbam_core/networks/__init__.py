"""Whole networks in weight files: finding, naming and writing them."""
