"""KidRails on Llama 3.1 8B, by QLoRA, with Unsloth.

The LoRA recipe on a base that is held in four bits: for one GPU of a gaming computer. The
adapters are trained in bf16; merging them gives back a bf16 model.

Needs   One GPU with 12 to 16 GB (RTX 4070 Ti, T4 is too old for bf16)
        pip install unsloth kidrails-guard
Data    kidrails data build
Train   python recipes/unsloth/kidrails_qlora.py
Change  python recipes/unsloth/kidrails_qlora.py --learning_rate 1e-5 --max_steps 10

Rendered from recipes/specs/kidrails-qlora.yaml: kidrails recipe render kidrails-qlora --to unsloth
"""

from kidrails_guard.recipes.with_unsloth import UnslothJob, main

JOB = UnslothJob(
    name="kidrails-qlora",
    base_model="meta-llama/Llama-3.1-8B",
    method="qlora",
    selection=None,
    trainable=41_943_040,
    lora=(16, 32),
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
    micro_batch=1,
    accumulation=8,
    learning_rate=0.0002,
    scheduler="cosine",
    warmup_ratio=0.05,
    weight_decay=0.0,
    max_grad_norm=1.0,
    optimizer="adamw_bnb_8bit",
    checkpointing=True,
    save_every=25,
    seed=42,
    output="outputs/kidrails-qlora-unsloth",
)

if __name__ == "__main__":
    raise SystemExit(main(JOB))
