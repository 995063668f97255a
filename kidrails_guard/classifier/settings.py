"""How a training run is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is done; all of it stands in the manifest.

    Attributes:
        seed: of the head's first weights; a run's order and dropout follow from it and the run.
        runs: independent runs from the same start, whose weights are averaged where the mean
            errs less than the best of them (Wortsman et al. 2022, "Model soups", arXiv
            2203.05482): nearly as sure as asking each, at the price of one.
        epochs: passes over the training rows; the best by development loss is kept.
        rate: peak learning rate of the encoder's last layer.
        copies: augmented forms of each of the project's own rows, an epoch.
        public_share: part of the public rows that an epoch sees.
        soft: how far targets are drawn from 0 and 1, so that noise in labels costs less.
        threads: torch's.
        average: decay of the averaged weights, a step.
        cleaned: share of texts that pass through the normaliser.
        limit: rows of each source at most, for a trial run; 0 for all.
    """

    seed: int = 7
    runs: int = 2
    epochs: int = 1
    batch: int = 32
    rate: float = 2.8e-4
    decay: float = 0.01
    warmup: float = 0.06
    copies: int = 1
    public_share: float = 0.35
    soft: float = 0.01
    threads: int = 1
    average: float = 0.998
    cleaned: float = 0.8
    limit: int = 0
