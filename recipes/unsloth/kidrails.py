"""KidRails on Llama 3.1 8B, by Spectrum, with Unsloth.

The main recipe: supervised fine-tuning of the base model on the golden conversations. Only the
half of the layers with the clearest signal is trained, so that the model keeps what it knows and
learns how to talk with a child. All other tensors stay bit for bit.

Needs   One GPU with 80 GB (A100, H100)
        pip install unsloth kidrails-guard
Data    kidrails data build
Train   python recipes/unsloth/kidrails.py
Change  python recipes/unsloth/kidrails.py --learning_rate 1e-5 --max_steps 10

Rendered from recipes/specs/kidrails.yaml: kidrails recipe render kidrails --to unsloth
"""

from kidrails_guard.recipes.with_unsloth import UnslothJob, main

JOB = UnslothJob(
    name="kidrails",
    base_model="meta-llama/Llama-3.1-8B",
    method="spectrum",
    selection="selections/llama-3.1-8b-spectrum-50.json",
    trainable=3_489_660_928,
    lora=None,
    lora_dropout=0.0,
    template="templates/llama3.jinja",
    eos="<|eot_id|>",
    pad="<|finetune_right_pad_id|>",
    data="build/data/sft.jsonl",
    held_out="build/data/sft.dev.jsonl",
    held_out_part=1,
    sequence_len=2048,
    bf16=True,
    epochs=3.0,
    max_steps=None,
    micro_batch=2,
    accumulation=4,
    learning_rate=2e-05,
    scheduler="cosine",
    warmup_ratio=0.05,
    weight_decay=0.0,
    max_grad_norm=1.0,
    optimizer="adamw_torch_fused",
    checkpointing=True,
    save_every=25,
    seed=42,
    output="outputs/kidrails-unsloth",
)

if __name__ == "__main__":
    raise SystemExit(main(JOB))
