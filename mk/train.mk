# The training environment, and the training runs that the documentation shows.

PYTHON_TRAIN ?= python3.11
TRAIN := .venv-train
TRAIN_PINS := $(sort $(wildcard requirements/train*.txt))
UV ?= .venv/bin/uv

# Remade only when the pins' text has changed, whatever the files' times say: a fresh checkout or a
# restored cache keeps its 3 GB.
$(TRAIN)/.stamp: $(TRAIN_PINS)
	@pins=$$(cat $(TRAIN_PINS) | sha256sum | cut -d' ' -f1); \
	if [ "$$(cat $@ 2>/dev/null)" = "$$pins" ]; then touch $@; exit 0; fi; \
	set -e; \
	[ -x $(UV) ] || { echo "$(UV) is missing; run first: make install" >&2; exit 2; }; \
	echo "[1/4] $(TRAIN): torch (by pip, which also sees a CPU wheel in a local folder)"; \
	[ -x $(TRAIN)/bin/python ] || $(PYTHON_TRAIN) -m venv $(TRAIN); \
	$(TRAIN)/bin/python -m pip install --quiet --progress-bar off -r requirements/train-torch.txt; \
	echo "[2/4] $(TRAIN): what axolotl, Unsloth and the classifier need (about 2 GB)"; \
	$(UV) pip install --python $(TRAIN)/bin/python --no-deps --require-hashes -r requirements/train.txt; \
	echo "[3/4] $(TRAIN): axolotl and Unsloth"; \
	$(UV) pip install --python $(TRAIN)/bin/python --no-deps --require-hashes -r requirements/train-nodeps.txt; \
	echo "[4/4] $(TRAIN): this package"; \
	$(UV) pip install --python $(TRAIN)/bin/python --no-deps -e .; \
	echo "$$pins" > $@

.PHONY: train-lock
train-lock: ## Renew the training environment's pins and hashes
	$(UV) pip compile --quiet --python-version 3.11 --generate-hashes \
		--no-emit-package kidrails-guard --override requirements/train-overrides.txt \
		requirements/train.in -o requirements/train.txt
	$(UV) pip compile --quiet --no-deps --python-version 3.11 --generate-hashes \
		requirements/train-nodeps.in -o requirements/train-nodeps.txt
