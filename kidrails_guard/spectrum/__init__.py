"""Spectrum: which layers carry the most signal, and how to train only those.

* `checkpoint`: a model's tensors (names, shapes, dtypes), from safetensors headers or a config
* `shapes`: the same for well-known models, without a checkpoint
* `weights`: one tensor's numbers, read from its shard
* `singular`: singular values by the Gram matrix, with a certificate of their error
* `twostage`: LAPACK's faster reduction
* `snr`: the two estimators
* `lanczos`: an estimate without eigenvalues
* `scoring`: one matrix, with the precision it needs
* `scan`: every matrix of a model, on several cores, resumable
* `report`: scan files, in the layouts that are published and in our own
* `ranking`: the order of the layers within their type
* `targeting`: which parameters to train, as a value that recipes are rendered from
* `selecting`: that value from a scan
* `memory`: what training them takes
* `heatmap`: a scan as a picture
* `summary`: a selection as text, a scan as plain values

Source: Hartford et al., *Spectrum: Targeted Training on Signal to Noise Ratio*, arXiv 2406.06623.
"""
