import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models.load import load_tokenizer
from rlhf_cluster.models.registry import resolve


@pytest.fixture(scope="session")
def smollm2_tokenizer():
    try:
        return load_tokenizer(resolve("smollm2-135m"))
    except ModelError as error:
        pytest.skip(str(error))
