"""`rlhf chat CHECKPOINT`: talk to a policy, or let it continue a text; streamed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.driver.observers.excerpt import printable
from rlhf_cluster.records import Sampling

if TYPE_CHECKING:
    from rlhf_cluster.models.continuation import Continuation, Turn


@click.command
@click.argument("checkpoint")
@click.option("-p", "--prompt", help="Answer this one prompt and exit.")
@click.option("--system", help="System message of the conversation.")
@click.option("--raw", is_flag=True, help="Continue the text as it is, without the chat template.")
@click.option("-n", "--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("-t", "--temperature", type=click.FloatRange(min=0), default=0.7, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@output_option
def chat(
    checkpoint: str,
    prompt: str | None,
    system: str | None,
    raw: bool,
    output: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> None:
    """Talk to CHECKPOINT: a directory in Hugging Face format, or a name of `rlhf models list`.

    Without a chat template, or with --raw, each line is a text to continue. Ctrl-C ends an answer, Ctrl-D the chat.
    """
    if output != "table" and prompt is None:
        raise click.UsageError(f"-o {output} needs --prompt: a conversation is not one JSON object")
    if prompt == "":
        raise click.UsageError("--prompt is empty; give it some text")
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    session = _Session(_open(checkpoint), sampling, system=system, raw=raw, seed=seed)
    if prompt is None:
        session.talk()
    elif output != "table":
        completion = "".join(session.answer(prompt))
        emit({"prompt": prompt, "completion": completion}, output=output, text=lambda: completion)
    else:
        _show(session.answer(prompt))


class _Session:
    """A conversation: the turns so far, and how answers are drawn."""

    def __init__(self, policy: Continuation, sampling: Sampling, *, system: str | None, raw: bool, seed: int) -> None:
        from rlhf_cluster.models.continuation import Turn

        self._policy = policy
        self._raw = raw or not policy.has_chat_template
        self._turns: list[Turn] = [Turn(role="system", content=system)] if system else []
        self._sampling = sampling
        self._seed = seed

    def talk(self) -> None:
        """Read lines and answer them until end of input."""
        click.echo("continues your text" if self._raw else "answers you", nl=False)
        click.echo("; Ctrl-C ends an answer, Ctrl-D the chat")
        while (line := _read_line()) is not None:
            if line.strip():
                _show(self.answer(line))

    def answer(self, prompt: str) -> Iterator[str]:
        """Pieces of the answer; the turn is remembered when it is complete or broken off."""
        from rlhf_cluster.models.continuation import Turn

        asked = [*self._turns, Turn(role="user", content=prompt)]
        text = prompt if self._raw else self._policy.render(asked)
        pieces: list[str] = []
        stream = self._policy.stream(text, self._sampling, rendered=not self._raw, seed=self._seed + len(self._turns))
        try:
            for piece in stream:
                pieces.append(piece)
                yield piece
        finally:
            if not self._raw:
                self._turns = [*asked, Turn(role="assistant", content="".join(pieces))]


def _open(checkpoint: str) -> Continuation:
    from rlhf_cluster.models import registry

    if os.sep in checkpoint and not Path(checkpoint).is_dir():
        raise NotFound(
            f"no checkpoint directory {checkpoint}; jobs write theirs into checkpoints/ of the job directory"
        )
    model_dir = registry.resolve(checkpoint)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from rlhf_cluster.models.continuation import Continuation

    return Continuation(model_dir)


def _show(pieces: Iterator[str]) -> None:
    """Print pieces as they come; Ctrl-C ends the answer and nothing else."""
    try:
        for piece in pieces:
            sys.stdout.write(printable(piece))
            sys.stdout.flush()
    except KeyboardInterrupt:
        close = getattr(pieces, "close", None)
        if close:
            close()
    click.echo()


def _read_line() -> str | None:
    """The next line of the person, or None at the end of input; at Ctrl-C too, as nothing is being answered."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return None
