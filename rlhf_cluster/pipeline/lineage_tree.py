"""A lineage as a tree for people: below each stage what it was made from, down to what no pipeline made."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf_cluster.pipeline.lineage import Ancestor, Lineage


def tree_lines(lineage: Lineage) -> list[str]:
    """The ancestry as a tree, what it was made from below what was made; a stage that is met again is only named."""
    return list(_lines(lineage, lineage.ancestors[-1], "", set()))


def _lines(lineage: Lineage, ancestor: Ancestor, indent: str, shown: set[str]) -> Iterator[str]:
    again = ancestor.digest in shown
    shown.add(ancestor.digest)
    yield f"{indent}{_title(ancestor)}{' (above)' if again else ''}"
    if again:
        return
    yield from (f"{indent}    {line}" for line in _facts(ancestor))
    for origin in ancestor.inputs:
        yield f"{indent}  {origin.key} = {origin.said}  {origin.digest[:12]}"
        if origin.made_by:
            yield from _lines(lineage, lineage.of(origin.made_by), f"{indent}    ", shown)


def _title(ancestor: Ancestor) -> str:
    return f"{ancestor.pipeline}/{ancestor.stage} {ancestor.digest[:12]}"


def _facts(ancestor: Ancestor) -> Iterator[str]:
    settings = ancestor.ingredients.settings
    algorithm, num_steps = settings.get("algorithm.type"), settings.get("train.num_steps")
    what = [f"{algorithm}, {num_steps} steps"] if algorithm else []
    yield ", ".join([*what, f"seed {settings.get('seed')}", f"{ancestor.ended_s - ancestor.started_s:.0f} s"])
    yield f"job  {ancestor.job_dir}"
    yield f"code {', '.join(f'{name} {digest[:12]}' for name, digest in ancestor.ingredients.code.items())}"
    yield f"     version {ancestor.version}, {', '.join(f'{n} {v}' for n, v in ancestor.libraries.items())}"
    for name, output in ancestor.outputs.items():
        yield f"made {name} {output.path}  {output.digest[:12]}"
