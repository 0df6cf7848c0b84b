"""A node of the cluster is lost under a running job, and another one joins: the pool shrinks and grows with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cluster.driver.ledger.ledger import read_history
from rlhf_cluster.flow.audit import audit

SCRIPT = Path(__file__).with_name("nodes_come_and_go.py")


@pytest.mark.long
def test_a_lost_node_costs_its_workers_and_a_new_one_brings_others(word_world_home, tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={
            **os.environ,
            "RLHF_CLUSTER_HOME": str(word_world_home),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    told = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    assert told["lost"]
    assert told["joined"]
    assert told["ended"][0] == "interrupted"
    report = audit(read_history(Path(told["ended"][1])), max_staleness=2)
    assert report.ok, [check for check in report.checks if not check.ok]
