"""`python -m rlhf_cluster.relay.tied PARENT COMMAND...`: becomes the command, and dies when process PARENT dies.

A driver whose relay was killed would go on unseen, with nobody to tell that another attempt has taken its place.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":  # elsewhere only the lease and the next attempt's claim end such a driver
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "the driver cannot be tied to its relay")
        if os.getppid() != parent:  # it died before the tie was made
            os.kill(os.getpid(), signal.SIGKILL)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
