"""Spectrum: which layers carry the most signal, and how to train only those.

* `checkpoint`: a model's tensors (names, shapes, dtypes), from safetensors headers or a config
* `weights`: one tensor's numbers, read from its shard
* `singular`: singular values by the Gram matrix, with a certificate of their error
* `snr`: the two estimators
* `scan`: every matrix of a model, on several cores, resumable
* `report`: scan files, in the layouts that are published and in our own
* `targeting`: which parameters to train
* `memory`: what training them takes
* `heatmap`: a scan as a picture

Source: Hartford et al., *Spectrum: Targeted Training on Signal to Noise Ratio*, arXiv 2406.06623.
"""
