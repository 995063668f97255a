# The training environment, and the training runs that the documentation shows.

# axolotl 0.19's pins are resolved for Python 3.11; later axolotls want 3.12 and other pins.
PYTHON_TRAIN ?= python3.11
TRAIN := .venv-train
TRAIN_PINS := $(sort $(wildcard requirements/train*.txt))
TRAIN_UV := .venv/bin/uv

# Remade only when the pins' text has changed, whatever the files' times say: a fresh checkout or a
# restored cache keeps its 3 GB.
$(TRAIN)/.stamp: $(TRAIN_PINS) | $(TRAIN_UV)
	@pins=$$(cat $(TRAIN_PINS) | sha256sum | cut -d' ' -f1); \
	if [ "$$(cat $@ 2>/dev/null)" = "$$pins" ]; then touch $@; exit 0; fi; \
	set -e; \
	command -v $(PYTHON_TRAIN) >/dev/null || { echo "$(PYTHON_TRAIN) is missing; install it, or name a Python 3.11: make PYTHON_TRAIN=/path/to/python3.11 $@" >&2; exit 2; }; \
	echo "[1/4] $(TRAIN): torch (by pip, which also sees a CPU wheel in a local folder)"; \
	[ -x $(TRAIN)/bin/python ] || $(PYTHON_TRAIN) -m venv $(TRAIN); \
	$(TRAIN)/bin/python -m pip install --quiet --progress-bar off -r requirements/train-torch.txt; \
	echo "[2/4] $(TRAIN): what axolotl, Unsloth and the classifier need (about 2 GB)"; \
	$(TRAIN_UV) pip install --python $(TRAIN)/bin/python --no-deps --require-hashes -r requirements/train.txt; \
	echo "[3/4] $(TRAIN): axolotl and Unsloth"; \
	$(TRAIN_UV) pip install --python $(TRAIN)/bin/python --no-deps --require-hashes -r requirements/train-nodeps.txt; \
	echo "[4/4] $(TRAIN): this package"; \
	$(TRAIN_UV) pip install --python $(TRAIN)/bin/python --no-deps -e .; \
	echo "$$pins" > $@

.PHONY: train-small
train-small: .venv/.dev $(TRAIN)/.stamp ## train SmolLM2 on the golden data, to GGUF, and chat with it
	@.venv/bin/python benchmarks/train_small.py

.PHONY: train-lock
train-lock: $(TRAIN_UV) ## renew the training environment's pins and hashes
	@$(TRAIN_UV) pip compile --quiet --python-version 3.11 --generate-hashes \
		--no-emit-package kidrails-guard --override requirements/train-overrides.txt \
		requirements/train.in -o requirements/train.txt
	@$(TRAIN_UV) pip compile --quiet --no-deps --python-version 3.11 --generate-hashes \
		requirements/train-nodeps.in -o requirements/train-nodeps.txt
