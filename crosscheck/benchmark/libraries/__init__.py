"""Runs of a model with an array library: one file for each, with the same names in all.

prepare(plan)                   set up this process; a RuntimeError if it sees no such device
array(shape, plan, seed)        a map of normal numbers, from (N, C, *S)
wait(result)                    returns when the result is there
copy(x), scale(x)               what fills memory that is already mapped, or memory that is new
Passes(build, x, ...)           the passes of a model in one mode, and what they keep in memory
"""
