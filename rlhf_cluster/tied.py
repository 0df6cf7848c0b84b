"""`python -m rlhf_cluster.tied PARENT COMMAND...`: becomes the command, and dies when process PARENT dies.

For a job that somebody else watches over: without it, the driver of a relay or of a pipeline that was killed would go
on unseen, with nobody to tell that another one has taken its place.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tie_to_parent(parent: int) -> None:
    """This process, a child of process `parent`, now dies with it. Raises `OSError` when the kernel refuses."""
    if sys.platform != "linux":  # elsewhere only a lease, or the claim of the next driver, ends such a one
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the process cannot be tied to its parent")
    if os.getppid() != parent:  # it died before the tie was made
        os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    tie_to_parent(parent)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
