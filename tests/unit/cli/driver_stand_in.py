"""A driver without a job: it holds the claim, writes views and obeys commands from the directory it is given.

`rollout-9` cannot be drained, a worker called `death` takes the driver with it, and `silence` is never answered.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.mailbox import Mailbox
from rlhf_cluster.driver.status_file import StatusFile, write_view
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.records.commands import Autoscale, Checkpoint, Command, Drain, Pause, Restart, Resume, Scale, Stop
from rlhf_cluster.records.members import JobView, MemberView, PoolView


class StandIn:
    def __init__(self, job_dir: Path) -> None:
        self.job_dir = job_dir
        self.claim = Claim.take(job_dir)
        self.state = "running"
        self.num_workers = 1
        self.stop = asyncio.Event()

    async def obey(self, command: Command) -> str:
        match command:
            case Scale():
                self.num_workers = command.num_workers
                return f"{command.role}: {command.num_workers} from now on"
            case Autoscale():
                return f"{command.role}: a policy chooses between {command.min_workers} and {command.max_workers}"
            case Drain(worker_id="rollout-9"):
                raise ConfigError("there is no worker 'rollout-9': there is rollout-0")
            case Drain(worker_id="death"):
                os._exit(1)
            case Drain(worker_id="silence"):
                await asyncio.Event().wait()
            case Restart():
                return f"{command.worker_id} is restarted"
            case Pause() | Resume():
                self.state = "paused" if isinstance(command, Pause) else "running"
            case Stop():
                self.stop.set()
                return "stopping after step 4"
            case Checkpoint():
                return "saved step 4"
        return f"{self.state} now"

    async def view(self) -> JobView:
        return self.look()

    def look(self) -> JobView:
        members = tuple(
            MemberView(role="rollout worker", worker_id=f"rollout-{number}", state="serving", version=4)
            for number in range(self.num_workers)
        )
        pool = PoolView(role="rollout worker", desired=self.num_workers, num_restarts=0, last_error="", members=members)
        return JobView(
            time_s=time.time(),
            epoch=self.claim.epoch,
            job_name="stand-in",
            state=self.state,
            phase="updating",
            step=4,
            num_steps=20,
            num_in_flight=2,
            num_complete=1,
            waiting_for="1 more group",
            bottleneck="",
            pools=(pool,),
        )

    async def run(self) -> None:
        tasks = [
            asyncio.create_task(Mailbox(self.job_dir).serve(self.obey, every_s=0.01)),
            asyncio.create_task(StatusFile(self.job_dir).keep(self.view, every_s=0.01)),
        ]
        await self.stop.wait()
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self.state = "interrupted"
        write_view(self.job_dir, self.look())
        self.claim.release()


async def main() -> None:
    await StandIn(Path(sys.argv[1])).run()


if __name__ == "__main__":
    asyncio.run(main())
