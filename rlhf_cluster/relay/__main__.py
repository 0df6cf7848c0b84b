"""`python -m rlhf_cluster.relay`: the entrypoint of a submission to Ray. What it has to know is in its environment:

RLHF_SERVICE_URL      where the service is
RLHF_ATTEMPT_TOKEN    by which the service knows the attempt
RAY_ADDRESS           the cluster that the job runs on; Ray sets it
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from rlhf_cluster.errors import RlhfError
from rlhf_cluster.relay.attempt import FAILED, run_attempt
from rlhf_cluster.relay.link import Link

USAGE = 2


async def run() -> int:
    async with Link(os.environ["RLHF_SERVICE_URL"], token=os.environ["RLHF_ATTEMPT_TOKEN"]) as link:
        return await run_attempt(link)


def main() -> int:
    missing = [name for name in ("RLHF_SERVICE_URL", "RLHF_ATTEMPT_TOKEN") if not os.environ.get(name)]
    if missing:
        print(f"Error: {' and '.join(missing)} must be set; the service does so for the jobs it submits",
              file=sys.stderr)  # fmt: skip
        return USAGE
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
    try:
        code = asyncio.run(run())
    except RlhfError as error:
        print(f"Error: {error}", file=sys.stderr)
        return FAILED
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
