"""KidRails on SmolLM2 135M, by Spectrum, on a CPU, with Unsloth.

The main recipe, to its end, on a laptop: a small Llama, the same method and data, no GPU. What it
makes is good for trying the whole way, not for a child. `make train-small` runs it all.

Needs   A CPU with 4 GB of free memory
        pip install unsloth kidrails-guard
Data    kidrails data build
Train   python recipes/unsloth/kidrails_small.py
Change  python recipes/unsloth/kidrails_small.py --learning_rate 1e-5 --max_steps 10

Rendered from recipes/specs/kidrails-small.yaml: kidrails recipe render kidrails-small --to unsloth
"""

from kidrails_guard.recipes.with_unsloth import UnslothJob, main

JOB = UnslothJob(
    name="kidrails-small",
    base_model="build/models/smollm2-135m-instruct",
    method="spectrum",
    selection="selections/smollm2-135m-instruct-spectrum-50.json",
    trainable=53_084_160,
    lora=None,
    lora_dropout=0.0,
    template=None,
    eos="<|im_end|>",
    pad="<|im_end|>",
    data="build/data/sft.jsonl",
    held_out="build/data/sft.dev.jsonl",
    held_out_part=5,
    sequence_len=768,
    bf16=False,
    epochs=1.0,
    max_steps=180,
    micro_batch=1,
    accumulation=4,
    learning_rate=0.0005,
    scheduler="cosine",
    warmup_ratio=0.05,
    weight_decay=0.0,
    max_grad_norm=1.0,
    optimizer="adamw_torch_fused",
    checkpointing=False,
    save_every=60,
    seed=42,
    output="outputs/kidrails-small-unsloth",
)

if __name__ == "__main__":
    raise SystemExit(main(JOB))
