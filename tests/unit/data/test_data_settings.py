import pytest
from pydantic import TypeAdapter, ValidationError

from rlhf_cluster.data.settings import DataSettings, JsonlSource, ProceduralSource, Source

WORDS = {"type": "procedural", "name": "word_world"}


def test_the_type_chooses_the_source():
    settings = DataSettings.model_validate({"train": WORDS, "eval": {"type": "jsonl", "path": "held_out.jsonl"}})
    assert isinstance(settings.train, ProceduralSource)
    assert isinstance(settings.eval, JsonlSource)
    assert settings.eval.prompt_column == "prompt"


def test_an_unknown_type_is_answered_with_the_known_ones():
    with pytest.raises(ValidationError, match="'jsonl', 'parquet', 'dataset', 'procedural'"):
        TypeAdapter(Source).validate_python({"type": "csv", "path": "x.csv"})


def test_a_misspelt_built_in_name_is_answered_with_the_right_one():
    with pytest.raises(ValidationError, match="did you mean 'word_world'"):
        ProceduralSource(name="word_wrld")


@pytest.mark.parametrize(
    "name", ["positive_reviews", "word_world", "reasoning_gym:chain_sum", "my_package.prompts:make"]
)
def test_names_that_can_be_loaded_later_are_accepted(name):
    assert ProceduralSource(name=name).name == name


def test_a_system_message_needs_the_chat_template():
    with pytest.raises(ValidationError, match='set template = "chat" or remove system'):
        DataSettings.model_validate({"train": WORDS, "system": "Be kind."})
    assert DataSettings.model_validate({"train": WORDS, "template": "chat", "system": "Be kind."}).system == "Be kind."


def test_settings_survive_json():
    settings = DataSettings.model_validate({"train": WORDS | {"num_rows": 3}, "max_prompt_tokens": 12})
    assert DataSettings.model_validate_json(settings.model_dump_json()) == settings
