"""`rlhf report DIR...`: evaluations side by side: a table here, a page with pictures and answers in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.words import number

if TYPE_CHECKING:
    from rlhf_cluster.functional.statistics import Interval
    from rlhf_cluster.report.report import Report

DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command
@click.argument("job_dirs", metavar="DIR...", nargs=-1, required=True, type=DIRECTORY)
@click.option("--against", metavar="DIR", type=DIRECTORY, help="The baseline; the first DIR with answers otherwise.")
@click.option("--by", metavar="REWARD", help="What is good: `gold` where there is one, else the sum of all rewards.")
@click.option("--proxy", metavar="REWARD", help="What was trained on: `proxy` where there is one, else another reward.")
@click.option("--judge", metavar="FILE", type=FILE, help="A TOML file with a judge, for its win rates too.")
@click.option(
    "--html", "html_file", metavar="FILE", type=FILE, default="report.html", show_default=True, help="The page."
)
@output_option
def report(
    job_dirs: tuple[Path, ...],
    against: Path | None,
    by: str | None,
    proxy: str | None,
    judge: Path | None,
    html_file: Path,
    output: str,
) -> None:
    """Compare the evaluations that jobs or `rlhf eval` have left in their directories.

    Writes a page, and beside it the same as JSON. Nothing is run but the judge.

    \b
    rlhf report runs/sft-1 runs/ppo-1 --html ppo.html
    rlhf report runs/rm-1
    """
    from rlhf_cluster.report.evaluations import read_evaluations
    from rlhf_cluster.report.files import write_report
    from rlhf_cluster.report.report import make_report, report_data

    evaluations = read_evaluations([*([against] if against else []), *job_dirs])
    made = make_report(evaluations, against=evaluations[0] if against else None, by=by, proxy=proxy)
    if judge is not None:
        from rlhf_cluster.report.judging import judged, read_judge

        made = judged(made, read_judge(judge))
    write_report(made, html_file)
    emit(report_data(made), output=output, text=lambda: f"{_text(made)}\n\npage  {html_file}")


def _text(made: Report) -> str:
    figures = [(name, *map(_short, found)) for name, found in made.figures]
    parts = [table(("figure", *(each.name for each in made.evaluations)), figures)]
    if made.compared:
        heads = (f"against {made.baseline.name}", "prompts", f"win rate by {made.by}", "difference")
        rows = [
            (each.name, each.num_prompts, _short(each.win_rate), _short(each.difference), _short(each.judged))
            for each in made.compared
        ]
        parts.append(table((*heads, f"win rate by {made.judge}" if made.judge else ""), rows))
    return "\n\n".join(parts)


def _short(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{number(interval.value)} ({number(interval.low)} to {number(interval.high)})"
