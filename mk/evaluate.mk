# The evaluations whose results are in the repository. A run that was stopped goes on where it was.

# One disguise in turn for each attempt, 128 tokens a reply, eight asked at a time: an engine on one core
# is three times as fast when it answers several together.
EVALUATE := $(BIN)/kidrails eval run --disguises 1 --max-tokens 128 --concurrency 8 --work build/evaluate
# What stands against the embedded model as its makers ship it: a GGUF file, a folder, `default`.
TUNED ?= default

build/data/eval.jsonl: $(wildcard data/golden/*.jsonl) | $(VENV)/.dev
	@$(BIN)/kidrails data build

.PHONY: evaluate
evaluate: build/data/eval.jsonl ## measure the embedded model and the guard; keeps the results
	@$(BIN)/kidrails eval guard --out evals/results/guard
	@$(EVALUATE) --guard both --out evals/results/embedded

.PHONY: evaluate-tuned
evaluate-tuned: build/data/eval.jsonl ## measure a fine-tuned model against its base (TUNED=default)
	@$(EVALUATE) --guard off --model base=base --model tuned=$(TUNED) --out evals/results/base-vs-tuned
	@$(BIN)/kidrails eval compare evals/results/base-vs-tuned --preset base-vs-tuned || test $$? = 1
