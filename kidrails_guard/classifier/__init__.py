"""The guard's trained classifier: what it learns from, how it is trained, and how it is run.

Running it needs onnxruntime and tokenizers only (`model`); training needs torch (`network`,
`fit`, `export`), which is imported when a training run starts and at no other time.

::

    data/messages, data/golden, public sets ─ rows, public ─▶ examples ─ augment ─▶ batches
    MiniLM ─ network, fit ─▶ weights ─ calibrate ─▶ thresholds ─ export ─▶ models/hazard/
"""
