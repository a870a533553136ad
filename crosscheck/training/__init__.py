"""Training in every framework: the same steps, judged; and a run that moves house."""

from crosscheck.training.moving import port

__all__ = ["port"]
