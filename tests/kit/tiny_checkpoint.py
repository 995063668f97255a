"""A tiny random Llama in safetensors, with a byte-level BPE tokenizer; without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LINES = (
    "why is the sky blue",
    "light bends and scatters",
    "ask a grown-up whom you trust",
    "user assistant system",
    "whales sing to each other under water",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def tiny_tokenizer() -> dict[str, Any]:
    """Return the content of a ``tokenizer.json`` of 320 tokens that splits digits."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 20, trainer)
    return json.loads(tokenizer.to_str())


def tiny_weights(seed: int = 7, *, tied: bool = True, scale: float = 0.3) -> dict[str, np.ndarray]:
    """Return seeded random weights under the names of a Llama checkpoint."""
    rng = np.random.default_rng(seed)
    hidden, inner, kv = SIZES["hidden_size"], SIZES["intermediate_size"], 32
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (320, hidden)}
    for layer in range(SIZES["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.k_proj.weight": (kv, hidden),
            f"{at}.self_attn.v_proj.weight": (kv, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
        }
    shapes["model.norm.weight"] = (hidden,)
    if not tied:
        shapes["lm_head.weight"] = (320, hidden)
    return {
        name: (
            np.ones(shape, np.float32)
            if len(shape) == 1
            else rng.normal(0, scale, shape).astype(np.float32)
        )
        for name, shape in shapes.items()
    }


def write_tiny(
    folder: Path,
    *,
    weights: dict[str, np.ndarray] | None = None,
    tied: bool = True,
    config: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
) -> Path:
    """Write the checkpoint and return its folder.

    Args:
        folder: where to write.
        weights: instead of the seeded random ones.
        tied: whether the head shares the embedding.
        config: keys of ``config.json`` to change; None as a value removes the key.
        tokenizer: instead of the tiny one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights or tiny_weights(tied=tied), folder / "model.safetensors", {"format": "pt"})
    values = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **SIZES,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        **(config or {}),
    }
    values = {key: value for key, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer or tiny_tokenizer()))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
