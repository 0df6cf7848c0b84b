"""Several data sets as one stream, and the report of what it gave."""

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from pydantic import ValidationError

from rlhf_cluster.data.instructions import FewShot, Instructions, Inversion, Worder
from rlhf_cluster.data.mixture import BLOCK, Mixture, Part, rates
from rlhf_cluster.data.mixture_report import mixture_report
from rlhf_cluster.data.open_draws import open_draws
from rlhf_cluster.data.recorded import open_recorded
from rlhf_cluster.data.settings import DataSettings
from rlhf_cluster.data.sources import Row
from rlhf_cluster.errors import DataError, ExampleTooLong
from rlhf_cluster.models.word_world import build_tokenizer


def rows(part, num):
    return [Row(number=n, prompt=f"{part} {n}", item={"completion": str(n)}, part=part) for n in range(num)]


def mixture(shares=(0.25, 0.75), *, seed=0, instructions=None, **settings):
    parts = []
    for name, num in zip("abc", (10, 7, 3), strict=True):
        of_part = rows(name, num)
        worder = Worder(instructions, training_rows=of_part) if instructions and name == "a" else None
        parts.append(Part(name=name, rows=of_part, worder=worder))
    return Mixture(parts[: len(shares)], rates=np.array(shares), seed=seed, **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1 / 111, 10 / 111, 100 / 111]),
        ({"max_rows": 1000}, [1 / 21, 10 / 21, 10 / 21]),
        ({"temperature": 2.0}, [1 / (1 + 10**0.5 + 10), 10**0.5 / (1 + 10**0.5 + 10), 10 / (1 + 10**0.5 + 10)]),
        ({"temperature": 1e9}, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_rates_are_those_of_the_t5_paper(settings, expected):
    assert rates([100, 1000, 10_000], **settings) == pytest.approx(expected, rel=1e-6)


def test_a_very_small_temperature_leaves_the_largest_alone():
    assert rates([10, 1000], temperature=0.001).tolist() == [0, 1]


def test_every_part_goes_through_its_rows_in_epochs_of_its_own():
    drawn = mixture()
    ids = [drawn[n].prompt_id for n in range(200)]
    for part, num_rows in (("a", 10), ("b", 7)):
        walk = [each.removeprefix(f"{part}:") for each in ids if each.startswith(part)]
        for epoch in range(len(walk) // num_rows):
            whole = walk[epoch * num_rows : (epoch + 1) * num_rows]
            assert sorted(whole) == sorted(f"{row}/{epoch}" for row in range(num_rows))


def test_the_parts_walk_in_orders_of_their_own_or_in_their_sources():
    drawn = mixture((0.5, 0.5), shuffle=False)
    walk = [drawn[n].row.number for n in range(100) if drawn[n].row.part == "a"]
    assert walk[:20] == [*range(10), *range(10)]


def test_a_draw_far_away_is_the_one_that_walking_there_finds():
    far = 3 * BLOCK + 17
    walked = mixture()
    ids = [walked[n].prompt_id for n in range(far + 1)]
    assert mixture()[far].prompt_id == ids[far]
    assert len(set(ids)) == len(ids)


def test_counts_are_what_was_drawn():
    drawn = mixture()
    for num in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 5):
        found = Counter(drawn[n].row.part for n in range(num))
        assert drawn.counts(num).tolist() == [found["a"], found["b"]]


def test_a_worded_draw_has_an_id_of_its_own_since_its_tokens_are():
    instructions = Instructions(prompts=("{prompt} ?", "so {prompt}"))
    drawn = mixture((1.0,), instructions=instructions)
    of_one_row = [drawn[n] for n in range(60) if drawn[n].row.number == 3]
    assert len({each.row.prompt for each in of_one_row}) == 2
    assert len({each.prompt_id.partition("/")[0] for each in of_one_row}) == len(of_one_row)


def test_the_report_counts_parts_epochs_forms_and_tokens_and_is_json():
    instructions = Instructions(
        prompts=("{prompt}", "so {prompt}"),
        few_shot=FewShot(num_exemplars=1, probability=0.5),
        inversion=Inversion(probability=0.2),
    )
    drawn = mixture(instructions=instructions)
    report = mixture_report(drawn, 6000, num_tokens=lambda n: len(drawn[n].row.prompt.split()))
    a, b = report.parts
    assert (a.num_rows, a.rate, b.rate) == (10, 0.25, 0.75)
    assert a.num_drawn + b.num_drawn == report.num_drawn == 6000
    assert a.epochs == a.num_drawn / 10
    assert sum(a.forms.values()) == a.num_drawn
    assert b.forms == {}
    assert set(a.forms) == {
        *("zero_shot/0", "zero_shot/1", "few_shot/0", "few_shot/1", "zero_shot+inverted/0", "few_shot+inverted/0")
    }
    assert (b.tokens_per_example, b.num_tokens) == (2.0, 2 * b.num_drawn)
    assert json.loads(json.dumps(asdict(report)))["parts"][0]["forms"] == dict(a.forms)


def test_the_report_tells_the_very_forms_of_the_draws():
    instructions = Instructions(
        prompts=("{prompt} !", "so {prompt}"), few_shot=FewShot(num_exemplars=1, separator=" | ")
    )
    drawn = mixture(instructions=instructions)

    def form(row):
        return f"{'few' if '|' in row.prompt else 'zero'}_shot/{0 if row.prompt.endswith('!') else 1}"

    seen = Counter(form(drawn[n].row) for n in range(500) if drawn[n].row.part == "a")
    (a, _) = mixture_report(drawn, 500).parts
    assert dict(a.forms) == seen
    assert (a.tokens_per_example, a.num_tokens) == (None, None)


def part(tmp_path, name, *examples, **settings):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in examples))
    return {"name": name, "source": {"type": "jsonl", "path": str(path)}, **settings}


@pytest.fixture
def sums(tmp_path):
    words = ("zero", "one", "two", "three", "four")
    return part(tmp_path, "sums", *((f"what is {word} plus one ?", "two") for word in words))


@pytest.fixture
def greetings(tmp_path):
    return part(tmp_path, "greetings", ("hello friend", "sure friend"), ("hey bot", "of course"))


def data(*parts, eval_parts=None, **settings):
    source = {"type": "mixture", "parts": parts}
    held_out = {"eval": {"type": "mixture", "parts": eval_parts}} if eval_parts else {}
    return DataSettings.model_validate({"train": source, **held_out, **settings})


def opened(settings, source=None, *, max_context=128):
    return open_recorded(settings, source or settings.train, build_tokenizer(), seed=0, max_context=max_context)


def test_a_mixture_of_files_is_recorded_with_what_its_parts_hold(sums, greetings):
    stream = opened(data(sums, greetings))
    assert (stream.num_rows, stream.counts.num_rows) == (7, 7)
    groups = [stream[n] for n in range(50)]
    assert [group.request_id for group in groups] == list(range(50))
    assert {group.prompt.prompt_id.partition(":")[0] for group in groups} == {"sums", "greetings"}
    report = stream.report(50)
    assert [each.rate for each in report.parts] == pytest.approx([5 / 7, 2 / 7])
    assert sum(each.num_tokens for each in report.parts) == sum(len(g.prompt.token_ids) + g.num_tokens for g in groups)


def test_a_source_that_is_no_mixture_has_no_report(sums):
    assert opened(DataSettings.model_validate({"train": sums["source"]})).report(5) is None


def test_weights_are_shares_whatever_the_sizes(sums, greetings):
    draws = open_draws(data({**sums, "weight": 1}, {**greetings, "weight": 3}).train, seed=0)
    assert draws.rates.tolist() == [0.25, 0.75]


def test_a_bad_row_is_named_with_its_part(sums, tmp_path):
    bad = part(tmp_path, "bad", ("hello", "hi"), ("what is two plus two ?", "one two three four"))
    with pytest.raises(ExampleTooLong, match="bad row 1"):
        opened(data(sums, bad), max_context=10)
    assert opened(data(sums, bad, too_long="skip"), max_context=10).counts.num_skipped == 1


def test_an_example_that_its_exemplars_make_too_long_has_fewer(sums):
    few_shot = {"few_shot": {"probability": 1, "num_exemplars": 3, "joint": " ", "separator": " "}}
    stream = opened(data({**sums, "instructions": few_shot}), max_context=20)
    for n in range(30):
        group = stream[n]
        assert group.prompt.text.count("what is") == 2  # 1 + 6 + 7 tokens and 2 of the answer; a third would be 23
        assert len(group.prompt.token_ids) + group.num_tokens <= 20


def test_exemplars_of_held_out_examples_are_training_rows(tmp_path):
    few_shot = {"few_shot": {"probability": 1, "num_exemplars": 1, "joint": " ", "separator": " | "}}
    train = part(tmp_path, "sums", ("what is one ?", "one"), ("what is two ?", "two"), instructions=few_shot)
    held_out = {**part(tmp_path, "held", ("what is three ?", "three"), ("what is four ?", "four")), "name": "sums"}
    settings = data(train, eval_parts=[{**held_out, "instructions": few_shot}])
    stream = opened(settings, settings.eval)
    for n in range(20):
        exemplar, question = stream[n].prompt.text.split(" | ")
        assert exemplar in ("what is one ? one", "what is two ? two")
        assert question in ("what is three ?", "what is four ?")


def test_held_out_examples_without_training_rows_of_their_part_get_no_exemplars(sums, greetings):
    few_shot = {"instructions": {"few_shot": {"num_exemplars": 1}}}
    settings = data(sums, eval_parts=[{**greetings, **few_shot}])
    with pytest.raises(DataError, match=r"held-out part greetings has few_shot.*no part of that name; it has sums"):
        opened(settings, settings.eval)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: {"parts": [a, a]}, "give every part a name of its own"),
        (lambda a, b: {"parts": [{**a, "weight": 1}, b]}, "only sums have a weight: give all one, or none"),
        (lambda a, b: {"parts": [{**a, "weight": 1}], "temperature": 2}, "remove them, or the weights"),
        (lambda a, b: {"parts": [{**a, "name": "a/b"}]}, "should match pattern"),
        (lambda a, b: {"parts": [{"name": "x", "source": {"type": "mixture", "parts": [a]}}]}, "'procedural'"),
        (lambda a, b: {"parts": []}, "at least 1"),
    ],
)
def test_a_mixture_that_contradicts_itself_is_refused(change, message, sums, greetings):
    with pytest.raises(ValidationError, match=message):
        DataSettings.model_validate({"train": {"type": "mixture", **change(sums, greetings)}})
