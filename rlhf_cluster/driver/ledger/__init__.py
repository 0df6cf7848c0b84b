"""What must survive any crash of a job: every prompt's life, and the tokens that are still to be trained on."""

from rlhf_cluster.driver.ledger.ledger import Ledger, read_history

__all__ = ["Ledger", "read_history"]
