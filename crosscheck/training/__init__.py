"""Training in every framework: the same steps, judged; and a run that moves house."""
