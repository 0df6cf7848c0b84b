"""A service with jobs of every kind in it, without a cluster: for looking at the page, and for tests of it.

    python tests/system/seeded_service.py --port 8430 --live

prints the address with a token. `--live` goes on with the running job, a step a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from rlhf_cluster.config.load import find, load_job
from rlhf_cluster.flow import labelling
from rlhf_cluster.records.members import JobView, MemberView, PoolView, RoleTime
from rlhf_cluster.service.store import (
    attempts,
    checkpoints,
    events,
    jobs,
    label_sets,
    labels,
    logs,
    metrics,
    pools,
    samples,
    tokens,
)
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.labels import NewPair
from rlhf_cluster.wire.relay import LogLine

RECIPE = "positive-reviews"
BOTTLENECK = (
    "Over the last 20 steps the learner waited for rollouts 58% of the time, rollout workers were idle 4%: "
    "the rollout workers set the pace."
)
TIME_SPLIT = (
    RoleTime(role="learner", busy=0.33, waiting=0.58, adopting=0.06, other=0.03),
    RoleTime(role="rollout", busy=0.96, waiting=0.04),
    RoleTime(role="reward", busy=0.09, waiting=0.91),
    RoleTime(role="reference", busy=0.26, waiting=0.74),
)
ADVICE = "one more rollout worker would make a step 0.9 s shorter, a sixth one 0.2 s"
OPENINGS = (
    "The camera work in this film is",
    "I went in expecting very little, and",
    "Halfway through the second act,",
)
WORDS = (
    "wonderful",
    "warm",
    "quiet",
    "film",
    "with",
    "great",
    "heart",
    "and",
    "lovely",
    "feels",
    "never",
    "long",
    "cheap",
    "a",
)
LATELY = (
    (1000, "AttemptLost", "attempt 1 was lost: nothing was heard of its driver for 45 s", {"level": "warning"}),
    (975, "JobStarted", "resumed: steps 26 to 400", {"first_step": 25}),
    (400, "WorkerChanged", "rollout worker rollout-3 is lost: killed by signal 9", {"level": "warning"}),
    (397, "WorkerChanged", "rollout worker rollout-5 is starting", {"state": "starting"}),
    (60, "Asked", "ada asked for 4 rollout workers", {}),
    (46, "WorkerChanged", "rollout worker rollout-5 is pending: no node has 1 CPU and 1 rollout free", {}),
)
"""Seconds ago, kind, words and the rest of what happened to the running job."""
WORKERS = ("rollout-0", "rollout-1", "rollout-2", "rollout-5")


def seed(db: Database, *, now_s: float) -> dict[str, str]:
    """Jobs by what they are: `running`, `paused`, `queued`, `succeeded`, `failed`, `cancelled`."""
    made = {}
    with db.writing() as c:
        made["succeeded"] = _job(c, "word-world", 40, now_s=now_s - 90_000, labels={})
        _finish(c, made["succeeded"], "succeeded", steps=40, message="", now_s=now_s - 88_900)
        made["cancelled"] = _job(c, "positive-reviews-lr", 300, now_s=now_s - 30_000, labels={"sweep": "lr"})
        _finish(c, made["cancelled"], "cancelled", steps=112, message="cancelled by ada", now_s=now_s - 24_000)
        made["failed"] = _job(c, "positive-reviews-lr", 300, now_s=now_s - 20_000, labels={"sweep": "lr"})
        told = "the loss is not finite at step 37: lower learner.optimizer.lr, or raise algorithm.kl_coef"
        _finish(c, made["failed"], "failed", steps=37, message=told, now_s=now_s - 18_600)
        made["paused"] = _job(c, "long-answers", 2000, now_s=now_s - 9000, labels={"team": "nlp"})
        _run(c, made["paused"], steps=460, num_steps=2000, state="paused", now_s=now_s)
        made["running"] = _job(c, RECIPE, 400, now_s=now_s - 2400, labels={"team": "nlp", "trial": ""})
        _run(c, made["running"], steps=143, num_steps=400, state="running", now_s=now_s, told=LATELY)
        _more_of_the_running_one(c, made["running"], now_s=now_s)
        made["queued"] = _job(c, "judge-and-rules", 120, now_s=now_s - 40, labels={})
        jobs.set_state(c, made["queued"], "queued", message="waits for a cluster: none is configured", now_s=now_s)
        _judged_pairs(c, now_s=now_s)
    return made


def _job(c: Connection, name: str, num_steps: int, *, now_s: float, labels: dict[str, str]) -> str:
    config = load_job(RECIPE, [f"train.num_steps={num_steps}", f"name={name}", "rollout.num_workers=4"])
    row = jobs.add(
        c,
        name=name,
        owner="ada",
        labels=labels,
        notes="",
        source=find(RECIPE).read_text(encoding="utf-8"),
        config=config.model_dump(mode="json"),
        num_steps=num_steps,
        max_attempts=3,
        bundle_sha256=None,
        now_s=now_s,
    )
    pools.ensure(c, row.job_id, config)
    return row.job_id


def figures(step: int, rng: random.Random) -> dict[str, float]:
    """Of a job that learns, with the noise of a real one."""
    learned = 1 - math.exp(-step / 70)
    step_s = 7.9 + rng.gauss(0, 0.5)
    return {
        "reward/mean": 0.12 + 0.72 * learned + rng.gauss(0, 0.035),
        "reward/std": 0.38 - 0.2 * learned + rng.gauss(0, 0.01),
        "reward/vader": 0.12 + 0.72 * learned + rng.gauss(0, 0.035),
        "learner/loss": 0.02 * math.exp(-step / 60) + rng.gauss(0, 0.004),
        "learner/kl": 0.11 * learned * (1 + rng.gauss(0, 0.12)),
        "learner/entropy": 2.6 - 1.1 * learned + rng.gauss(0, 0.03),
        "learner/clip_fraction": max(0.0, 0.06 + 0.03 * math.sin(step / 9) + rng.gauss(0, 0.012)),
        "learner/grad_norm": 0.9 + abs(rng.gauss(0, 0.25)),
        "learner/lr": 1e-4,
        "learner/tokens_per_s": 2150 + rng.gauss(0, 90),
        "rollout/completion_length_mean": 13.1 - 1.4 * learned + rng.gauss(0, 0.2),
        "rollout/truncated_rate": 0.7 - 0.2 * learned,
        "rollout/tokens_per_s": 840 + rng.gauss(0, 40),
        "rollout/idle_share": min(1.0, max(0.0, 0.04 + rng.gauss(0, 0.01))),
        "reward/idle_share": 0.91,
        "reference/idle_share": 0.74,
        "driver/staleness_max": float(rng.choice((0, 1, 1, 2))),
        "driver/staleness_mean": 0.6,
        "driver/step_s": step_s,
        "driver/gather_s": step_s * 0.58,
        "driver/update_s": step_s * 0.33,
        "driver/invalid_rate": 0.0,
        "driver/ideal_share": 0.94,
        "weights/hand_over_s": step_s * 0.06,
        "weights/adopt_s": step_s * 0.035,
        "weights/probe_gap": 0.012,
    }


def add_step(c: Connection, job_id: str, step: int, *, time_s: float, rng: random.Random) -> None:
    values = figures(step, rng)
    if step % 25 == 0:
        values |= {"eval/reward_mean": values["reward/mean"] + 0.02, "eval/completion_length_mean": 12.0}
    metrics.add(c, job_id, step=step, time_s=time_s, values=values)
    text = f"step {step}: reward {values['reward/mean']:.3f}"
    body = {"metrics": values}
    events.add(c, topic="metrics", job_id=job_id, time_s=time_s, step=step, kind="StepDone", text=text, body=body)


def _tell(c: Connection, job_id: str, kind: str, text: str, *, time_s: float, step: int = 0, **rest: Any) -> None:
    topic, level = rest.pop("topic", "jobs"), rest.pop("level", "info")
    events.add(c, topic=topic, job_id=job_id, time_s=time_s, step=step, kind=kind, text=text, level=level, body=rest)


def _finish(c: Connection, job_id: str, state: str, *, steps: int, message: str, now_s: float) -> None:
    rng = random.Random(job_id)
    attempts.add(c, job_id, 1, submission_id=f"{job_id}-1", now_s=now_s - steps * 8 - 20)
    attempts.register(c, job_id, 1, host="node-7", process_id=4711, lease_until_s=now_s)
    jobs.set_state(c, job_id, "running", message="", now_s=now_s - steps * 8)
    for step in range(1, steps + 1):
        add_step(c, job_id, step, time_s=now_s - (steps - step) * 8, rng=rng)
    view = _view(steps, steps, state="stopping", now_s=now_s, pools=())
    jobs.saw(c, job_id, view, now_s=now_s)
    is_good = state == "succeeded"
    attempts.end(
        c, job_id, 1, outcome=state, exit_code=0 if is_good else 1, message=message, may_be_retried=False, now_s=now_s
    )
    jobs.set_state(c, job_id, state, message=message, now_s=now_s)
    outcome = "succeeded" if is_good else "failed"
    level = "info" if is_good else "error"
    _tell(c, job_id, "JobEnded", f"ended: {outcome}", time_s=now_s, step=steps, outcome=outcome, level=level)
    checkpoints.add(c, job_id, step=steps, path=f"jobs/{job_id}/checkpoints/step-{steps:06d}", time_s=now_s)


def _run(
    c: Connection, job_id: str, *, steps: int, num_steps: int, state: str, now_s: float, told: Sequence[Any] = ()
) -> None:
    rng, left = random.Random(job_id), list(told)
    attempts.add(c, job_id, 1, submission_id=f"{job_id}-1", now_s=now_s - steps * 8 - 30)
    attempts.register(c, job_id, 1, host="node-3", process_id=901, lease_until_s=now_s + 1e6)
    jobs.set_state(c, job_id, "running", message="", now_s=now_s - steps * 8 - 10)
    _tell(c, job_id, "JobStarted", f"started: steps 1 to {num_steps}", time_s=now_s - steps * 8 - 5)
    for step in range(1, steps + 1):
        at_s = now_s - (steps - step) * 8
        while left and now_s - left[0][0] < at_s:
            before_s, kind, text, rest = left.pop(0)
            topic = "workers" if kind == "WorkerChanged" else "jobs"
            _tell(c, job_id, kind, text, time_s=now_s - before_s, step=step - 1, topic=topic, **rest)
        add_step(c, job_id, step, time_s=at_s, rng=rng)
        if step % 25 == 0:
            path = f"jobs/{job_id}/checkpoints/step-{step:06d}"
            _tell(c, job_id, "CheckpointSaved", f"checkpoint saved to {path}", time_s=at_s, step=step, path=path)
            checkpoints.add(c, job_id, step=step, path=path, time_s=at_s)
    jobs.set_state(c, job_id, state, message="", now_s=now_s)
    see(c, job_id, steps, num_steps, state=state, now_s=now_s)


def see(c: Connection, job_id: str, step: int, num_steps: int, *, state: str, now_s: float) -> None:
    """As the driver of the job says it is now."""
    jobs.saw(c, job_id, _view(step, num_steps, state=state, now_s=now_s, pools=_pools(step, now_s)), now_s=now_s)


def _pools(step: int, now_s: float) -> tuple[PoolView, ...]:
    rng = random.Random(step)
    working = [
        MemberView(
            role="rollout worker",
            worker_id=name,
            state="adopting" if (step + index) % 4 == 0 else "serving",
            version=step - (1 if (step + index) % 4 == 0 else 0),
            num_in_flight=rng.randint(1, 4),
            tokens_in_flight=rng.randint(10, 400),
            tokens_per_s=280 + rng.gauss(0, 25),
            busy_share=min(1.0, 0.95 + rng.gauss(0, 0.02)),
            rss_bytes=int(1.4 * 2**30),
            process_id=5000 + index,
            since_s=now_s - 900 + index * 60,
        )
        for index, name in enumerate(WORKERS[:3])
    ]
    reason = "no node has 1 CPU and 1 rollout free: 3 of 3 are taken; the autoscaler was asked for another node"
    pending = MemberView(
        role="rollout worker", worker_id=WORKERS[3], state="pending", reason=reason, since_s=now_s - 46
    )
    return (
        PoolView(
            role="rollout worker",
            desired=4,
            num_restarts=1,
            last_error="rollout-3 died: its process was killed by signal 9, most likely for want of memory",
            members=(*working, pending),
            reason=ADVICE,
            recommended=5,
        ),
        _steady("reward server", ("reward-0",), now_s=now_s, busy=0.09),
        _steady("reference scorer", ("reference-0",), now_s=now_s, busy=0.26, tokens_per_s=3100.0),
        _steady("learner", ("learner-0",), now_s=now_s, busy=0.41, version=step),
    )


def _steady(role: str, names: Sequence[str], *, now_s: float, busy: float, **rest: Any) -> PoolView:
    members = tuple(
        MemberView(
            role=role,
            worker_id=name,
            state="serving",
            busy_share=busy,
            rss_bytes=2 * 2**30,
            since_s=now_s - 1100,
            num_in_flight=1,
            **rest,
        )
        for name in names
    )
    return PoolView(role=role, desired=len(names), num_restarts=0, last_error="", members=members)


def _view(step: int, num_steps: int, *, state: str, now_s: float, pools: tuple[PoolView, ...]) -> dict[str, Any]:
    view = JobView(
        time_s=now_s,
        epoch=2,
        job_name="seeded",
        state=state,
        phase="training",
        step=step,
        num_steps=num_steps,
        num_in_flight=7,
        num_complete=3,
        waiting_for="5 of 8 groups of the next batch; the oldest has been generated for 4 s",
        bottleneck=BOTTLENECK,
        pools=pools,
        time_split=TIME_SPLIT,
    )
    return dataclasses.asdict(view)


def _more_of_the_running_one(c: Connection, job_id: str, *, now_s: float) -> None:
    """A first attempt that was lost, a worker that died, completions and log lines."""
    attempts.lose(c, job_id, 1, message="nothing was heard of its driver for 45 s", now_s=now_s - 1000)
    attempts.add(c, job_id, 2, submission_id=f"{job_id}-2", now_s=now_s - 980)
    attempts.register(c, job_id, 2, host="node-4", process_id=1204, lease_until_s=now_s + 1e6)
    rng = random.Random(7)
    for step in (0, 25, 50, 100, 142, 143):
        kind = "eval" if step in (0, 25, 50, 100) else "step"
        samples.add_file(c, job_id, f"{kind}-{step:06d}.parquet", _completions(step, rng), keep=256)
    logs.add(c, job_id, list(_lines(now_s, rng)))


def _completions(step: int, rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for index, opening in enumerate(OPENINGS):
        for _ in range(4):
            words = rng.sample(WORDS, k=rng.randint(6, 14))
            reward = min(1.0, max(-1.0, -0.1 + step / 170 + rng.gauss(0, 0.3)))
            rows.append(
                {
                    "step": step,
                    "request_id": step * 100 + index,
                    "prompt_id": f"reviews/{step * 8 + index}",
                    "prompt": f"<|im_start|>user\nContinue the review.\n<|im_end|>\n<|im_start|>assistant\n{opening}",
                    "completion": " " + " ".join(words) + ".",
                    "reward": reward,
                    "reward/vader": reward,
                    "advantage_mean": rng.gauss(0, 1),
                    "length": len(words),
                    "finish_reason": rng.choice(("stop", "length")),
                    "version_oldest": max(0, step - 1),
                    "version_newest": step,
                    "worker_id": rng.choice(WORKERS[:3]),
                    "invalid": "",
                }
            )
    return rows


GUIDELINES = """Prefer the answer that you would rather be given: true first, then clear, then short.

Markup is part of the answer and is judged like the rest of it. Where both are wrong in the same way, it is a tie."""


def _judged_pairs(c: Connection, *, now_s: float) -> None:
    """Two people who mostly agree, one of whom likes the left side; `ada`, who looks at the page, has just begun."""
    rng = random.Random(3)
    fields = {"created_by": "ada", "seed": 3, "overlap": 2, "guidelines": GUIDELINES, "now_s": now_s - 7200}
    set_id = label_sets.add(c, name="helpful-answers", **fields).set_id
    pairs = [
        NewPair(
            prompt=f"Continue the review, and say what you liked ({number + 1}).\n\n{rng.choice(OPENINGS)} ...",
            completion_a=_answer(rng),
            completion_b=f"<b>{_answer(rng)}</b>\n\n1. {_answer(rng)}\n2. {_answer(rng)}",
            policy="step-000125",
        )
        for number in range(48)
    ]
    label_sets.add_pairs(c, set_id, pairs)
    for who, num, favour in (("bob", 40, 0.05), ("cyd", 30, 0.45), ("ada", 2, 0.0)):
        for number in range(num) if who != "ada" else (46, 47):
            left = labelling.on_the_left(seed=3, number=number, labeler=who)
            better = "tie" if number % 9 == 0 else "ab"[number % 2]
            choice = left if rng.random() < favour else "skip" if rng.random() < 0.04 else better
            taken_s, time_s = rng.lognormvariate(2.4, 0.5), now_s - 7000 + 60 * number
            labels.add(c, set_id, who, number, choice=choice, shown_left=left, taken_s=taken_s, now_s=time_s)
    labels.undo_last(c, set_id, "bob", now_s=now_s, lease_s=1.0)


def _answer(rng: random.Random) -> str:
    return f"It is {' '.join(rng.sample(WORDS, k=rng.randint(6, 14)))}."


def _lines(now_s: float, rng: random.Random) -> list[LogLine]:
    said = (
        ("driver", "step {}: 8 groups, 64 completions, 783 tokens"),
        ("rollout-0", "adopted version {}: fingerprint and probe agree"),
        ("rollout-1", "prefix cache: 61% of prompt tokens were there"),
        ("learner-0", "step {}: 4 microbatches, gradient norm 0.91"),
        ("reward-0", "WARNING vader: one completion was empty and scored 0"),
    )
    chosen = [said[min(len(said) - 1, int(rng.expovariate(0.7)))] for _ in range(240)]
    return [
        LogLine(component=who, offset=index * 100, line=text.format(index // 2 + 20), time_s=now_s - (240 - index) * 4)
        for index, (who, text) in enumerate(chosen)
    ]


def _there(db: Database) -> dict[str, str]:
    """The jobs that a service before this one has left, by their state."""
    with db.reading() as c:
        return {row.state: row.job_id for row in jobs.page(c, limit=50)[0]}


def go_on(db: Database, job_id: str, *, stop: threading.Event) -> None:
    """Steps of the running job, one a second, until `stop`."""
    rng = random.Random(1)
    with db.reading() as c:
        row = jobs.get(c, job_id)
    step, num_steps = row.view["step"], row.num_steps
    while not stop.wait(1.0) and step < num_steps:
        step += 1
        now_s = time.time()
        with db.writing() as c:
            add_step(c, job_id, step, time_s=now_s, rng=rng)
            see(c, job_id, step, num_steps, state="running", now_s=now_s)
            line = LogLine(component="driver", offset=10**6 + step, line=f"step {step} done", time_s=now_s)
            logs.add(c, job_id, [line])


def main() -> None:
    import uvicorn

    from rlhf_cluster.service.app import create_app
    from rlhf_cluster.service.serve import listen
    from rlhf_cluster.service.settings import ServiceSettings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8430, help="0: any that is free")
    parser.add_argument("--root-path", default="")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--empty", action="store_true")
    parser.add_argument("--data-dir", type=Path, help="kept, and gone on with; left out, a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlhf-seeded-") as directory:
        data_dir = given.data_dir or Path(directory)
        is_new = not (data_dir / "service.db").exists()
        listener = listen("127.0.0.1", given.port)
        port = listener.getsockname()[1]
        app = create_app(ServiceSettings(data_dir=data_dir, port=port, root_path=given.root_path))
        db, stop = app.state.service.db, threading.Event()
        made = seed(db, now_s=time.time()) if is_new and not given.empty else _there(db)
        with db.writing() as c:
            _, secret = tokens.add(c, name="ada", scopes=["admin"], now_s=time.time())
        print(f"http://127.0.0.1:{port}{given.root_path}/login#token={secret}", json.dumps(made), flush=True)
        if given.live and "running" in made:
            threading.Thread(target=go_on, args=(db, made["running"]), kwargs={"stop": stop}, daemon=True).start()
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listener])
        stop.set()


if __name__ == "__main__":
    main()
