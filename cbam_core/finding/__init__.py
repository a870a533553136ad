"""Which arrays of a file are CBAMs: by names first, by shapes second, never by a guess.

`nestings` takes off what people put around a model, `tree` is what is left; `groups` and `in_order`
collect the names of a block, `shown` says what its shapes show, `claims` decides between dialects,
`strays` looks at what no block has; `blocks` asks them all.
"""
