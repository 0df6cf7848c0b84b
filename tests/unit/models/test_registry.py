import subprocess
import sys

import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models import registry, word_world
from rlhf_cluster.models.registry import add, list_models, resolve


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def local_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("local")
    word_world.make(path, recipe=word_world.Recipe(num_steps=1, batch_size=2))
    return path


@pytest.fixture
def quick_recipe(monkeypatch):
    """`word-world` with one step of teaching: the registry does not care how good the model is."""
    recipe = word_world.Recipe(num_steps=1, batch_size=2)
    quick = registry.KnownModel(
        description="quick", make=lambda path, _: word_world.make(path, recipe=recipe), recipe=recipe.digest
    )
    monkeypatch.setitem(registry.KNOWN, "word-world", quick)


def quiet(line):
    pass


def test_a_directory_resolves_to_itself(local_model):
    assert resolve(local_model) == local_model


def test_an_added_directory_resolves_by_its_name(local_model, home):
    assert add("mine", source=local_model, progress=quiet) == home / "models" / "mine" == resolve("mine")
    with pytest.raises(ModelError, match="there already is a model mine"):
        add("mine", source=local_model, progress=quiet)


def test_a_known_model_that_is_absent_says_how_to_get_it():
    with pytest.raises(ModelError, match="smollm2-135m is not on this machine yet: run `rlhf models add smollm2-135m`"):
        resolve("smollm2-135m")


def test_a_misspelt_name_is_answered_with_the_right_one():
    with pytest.raises(ModelError, match=r"did you mean 'smollm2-135m'.*run `rlhf models add NAME`"):
        resolve("smollm2-135")
    with pytest.raises(ModelError, match="did you mean 'word-world'"):
        add("word_world", progress=quiet)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_directory_that_is_no_model_says_which_file_is_missing(missing, local_model, tmp_path):
    for file in local_model.iterdir():
        if file.name != missing:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=missing.replace("model.safetensors", r"\*.safetensors")):
        resolve(tmp_path)


def test_a_gguf_file_says_how_to_convert_it(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=f"`rlhf models add NAME --from {path}`"):
        resolve(path)
    with pytest.raises(ModelError, match=r"config\.json is missing; convert its GGUF"):
        resolve(tmp_path)


def test_other_files_and_bad_names_are_refused(tmp_path, local_model):
    (tmp_path / "x.bin").touch()
    with pytest.raises(ModelError, match="is a file; a model is a directory"):
        resolve(tmp_path / "x.bin")
    with pytest.raises(ModelError, match="neither a Hugging Face directory nor"):
        add("mine", source=tmp_path / "x.bin", progress=quiet)
    with pytest.raises(ModelError, match="is no model name"):
        add("../mine", source=local_model, progress=quiet)


def test_word_world_is_made_once(home, quick_recipe):
    told = []
    path = add("word-world", progress=told.append)
    add("word-world", progress=told.append)
    assert path == home / "models" / "word-world" == resolve("word-world")
    assert [line.split(" at ")[0] for line in told] == ["word-world is ready", "word-world is already"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["word-world"]


def test_a_model_of_another_recipe_is_not_used_and_is_made_again(quick_recipe):
    path = add("word-world", progress=quiet)
    (path / registry.RECIPE_FILE).write_text("older\n")
    with pytest.raises(ModelError, match="was made by another version: run `rlhf models add word-world`"):
        resolve("word-world")
    add("word-world", progress=quiet)
    assert resolve("word-world") == path


def test_a_failed_add_leaves_nothing_behind(home, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"not a model" * 100)
    with pytest.raises(ModelError, match="transformers cannot read"):
        add("mine", source=tmp_path / "broken.gguf", progress=quiet)
    assert list((home / "models").iterdir()) == []


def test_the_list_shows_known_and_added_models(local_model):
    assert [(record.name, record.present) for record in list_models()] == [
        ("smollm2-135m", False),
        ("word-world", False),
        ("word-world-base", False),
    ]
    add("mine", source=local_model, progress=quiet)
    mine = list_models()[-1]
    assert (mine.name, mine.present) == ("mine", True)
    assert 330_000 < mine.num_params < 370_000
    assert mine.num_bytes > 4 * mine.num_params


def test_listing_and_resolving_load_no_torch(quick_recipe):
    add("word-world", progress=quiet)
    code = (
        "import sys\nfrom rlhf_cluster.models.registry import list_models\nprint(list_models()[1].present)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == "False\n", "the full recipe is another than the quick one"
