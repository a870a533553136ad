"""What is built to be measured: one file for each framework, with the same functions in all.

library()                       the file of `libraries` that runs what is built
blocks(x, plan)                 entries of a block on a map
networks(x, plan)               entries of a network on pictures
"""
