"""Reports of evaluations, made from the files that those have left and from nothing else."""
