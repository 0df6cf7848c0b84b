"""`rlhf samples JOB`: what the policy has answered, and what the answers were worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import any_job_argument
from rlhf_cluster.cli.service import connected, service_options
from rlhf_cluster.cli.words import number
from rlhf_cluster.driver.observers.excerpt import excerpt, printable

if TYPE_CHECKING:
    from rlhf_cluster.wire.figures import Sample

SORTS = {"newest": "newest", "best": "-reward", "worst": "reward"}
PROMPT, COMPLETION = 160, 400


@click.command
@any_job_argument
@click.option("--step", type=click.IntRange(min=0), help="Only of this step.")
@click.option("--kind", type=click.Choice(["step", "eval"]), help="Only of training, or of evaluations.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="newest", show_default=True, help="Which come first.")
@click.option("--search", metavar="TEXT", help="Only those with this in prompt or completion.")
@click.option("--min-reward", type=float, help="Only those worth at least this.")
@click.option("--max-reward", type=float, help="Only those worth at most this.")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="At most so many.")
@click.option("--whole", is_flag=True, help="Do not shorten prompts and completions.")
@service_options
@output_option
def samples(job: Path | str, sort: str, search: str | None, limit: int, whole: bool, output: str, **given: Any) -> None:
    """Show completions of JOB with their rewards. Of a job directory, those of evaluations that its journal keeps."""
    if isinstance(job, Path):
        found = _of_directory(job, sort=sort, search=search, **given)[:limit]
    else:
        with connected() as client:
            filters = given | {"q": search, "sort": SORTS[sort]}
            found = list(client.samples(client.find(job).job_id, limit=limit, **filters))
    shown = "\n\n".join(_text(sample, whole=whole) for sample in found)
    emit(found, output=output, text=lambda: shown or "there is no such sample")


def _of_directory(
    job_dir: Path,
    *,
    sort: str,
    search: str | None,
    step: int | None,
    kind: str | None,
    min_reward: float | None,
    max_reward: float | None,
) -> Sequence[Sample]:
    from rlhf_cluster.cli import job_dir_figures

    found = [
        sample
        for sample in job_dir_figures.samples(job_dir)
        if step in (None, sample.step)
        and kind in (None, sample.kind)
        and (search is None or search.lower() in f"{sample.prompt}\n{sample.completion}".lower())
        and (min_reward is None or (sample.reward is not None and sample.reward >= min_reward))
        and (max_reward is None or (sample.reward is not None and sample.reward <= max_reward))
    ]
    if sort != "newest":
        sign = -1 if sort == "best" else 1
        found.sort(key=lambda sample: (sample.reward is None, sign * (sample.reward or 0.0)))
    return found


def _text(sample: Sample, *, whole: bool) -> str:
    parts = "  ".join(f"{excerpt(name)} {number(value)}" for name, value in sample.breakdown.items())
    head = f"{sample.kind} {sample.step}  reward {number(sample.reward)}" + (f"  ({parts})" if parts else "")
    if whole:
        return f"{head}\n> {printable(sample.prompt)}\n{printable(sample.completion)}"
    return (
        f"{head}\n> {excerpt(sample.prompt, width=PROMPT, keep='end')}\n{excerpt(sample.completion, width=COMPLETION)}"
    )
