"""`python -m rlhf_cluster.cli` is `rlhf`."""

from rlhf_cluster.cli.main import main

if __name__ == "__main__":
    main()
