import gguf as gguf_file_format
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models import gguf

WORDS = ["<pad>", "<bos>", "<eos>", "a", "b", "ab", "Ġ", "Ġa"]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def tiny_gguf(tmp_path):
    """A Llama of one layer, 8 tokens and 64 hidden units, as llama.cpp would write it."""
    path = tmp_path / "tiny.gguf"
    writer = gguf_file_format.GGUFWriter(path, "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_vocab_size(len(WORDS))
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    torch.manual_seed(0)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", torch.randn(64, 64).numpy())
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", torch.ones(64).numpy())
    writer.add_tensor("token_embd.weight", torch.arange(8.0)[:, None].expand(8, 64).contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_becomes_a_dense_directory_with_its_chat_template(tiny_gguf, tmp_path):
    gguf.convert(tiny_gguf, tmp_path / "out")
    model, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.dtype == torch.bfloat16
    assert not hasattr(model.config, "quantization_config")
    assert model.get_input_embeddings().weight[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.model_max_length == 32
    assert tokenizer("ab a")["input_ids"] == [5, 7]


def test_a_file_that_is_no_gguf_is_named(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"not a model" * 100)
    with pytest.raises(ModelError, match=r"transformers cannot read .*broken\.gguf"):
        gguf.convert(tmp_path / "broken.gguf", tmp_path / "out")
