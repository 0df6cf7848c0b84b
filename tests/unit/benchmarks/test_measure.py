"""CPU-seconds are counted over the whole process tree, and steps keep their parts apart."""

from __future__ import annotations

import subprocess
import sys

from measure import Meter, tree_cpu_s

# The child itself says when it has used its CPU-seconds: a bound on work, not on time.
BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"


def test_cpu_seconds_of_a_living_child_count() -> None:
    before = tree_cpu_s()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        while_alive = tree_cpu_s()
        child.stdin.write(b"\n")
    # /proc counts in ticks of 10 ms.
    assert while_alive - before > 0.25


def test_cpu_seconds_of_a_dead_child_count() -> None:
    before = tree_cpu_s()
    subprocess.run([sys.executable, "-c", BURN], input=b"\n", stdout=subprocess.DEVNULL, check=True, timeout=60)
    assert tree_cpu_s() - before > 0.25


def test_work_between_steps_is_in_no_step_and_parts_add_up() -> None:
    meter = Meter()
    with meter.step():
        for _ in range(2):
            with meter.part("gen"):
                sum(range(300_000))
    sum(range(3_000_000))
    with meter.step():
        pass
    first, second = meter.steps
    assert 0 < first.parts["gen"] <= first.cpu_s
    assert second.parts == {}
    assert second.cpu_s < first.cpu_s
