"""Pure judgement: numbers in, verdicts with reasons out. Knows the model and nothing else."""
