"""Fine-tuning, seeded, on CPU or GPU. Needs torch."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # torch's own name for it

from kidrails_guard.classifier.augment import Surroundings, augment
from kidrails_guard.classifier.encode import Turn, Window, encode
from kidrails_guard.classifier.examples import OPEN, Example
from kidrails_guard.classifier.labels import BINARY, RISK_AT, SLICES, combine
from kidrails_guard.classifier.network import HazardNetwork
from kidrails_guard.classifier.settings import Settings
from kidrails_guard.types import Stage

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Clean = Callable[[str], str]
LONG = frozenset({"jailbreaks_in_the_wild"})
"""Sets whose texts say the same all the way through: any window of them is a row, as of a benign
text; a long one must not look risky where a window begins in the middle of a sentence."""
CHILDREN = frozenset({"childsafe_half"})
"""Public sets of children's talk, seen whole in every epoch."""


KIND_WEIGHT = 0.7
"""How much the choice of one hazard counts beside the yes-or-no of each."""


def windows_of(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    clean: Clean,
    *,
    seen: Callable[[Example], Sequence[str]] = lambda example: (example.text,),
) -> Iterator[list[Window]]:
    """Yield each example's windows, as the running classifier will see them.

    Args:
        examples: texts with their turns.
        tokenizer: the encoder's.
        clean: the normaliser.
        seen: the parts of a text that are looked at one by one; the text alone by default.
    """
    for example in examples:
        turns = [Turn(t.role, clean(t.text)) for t in example.turns]
        yield [
            window
            for text in seen(example) or (example.text,)
            for window in encode(tokenizer, clean(text), turns, stage=example.stage)
        ]


def collate(windows: Sequence[Window]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return padded ids, mask and types, each of shape (rows, longest)."""
    longest = max(len(w.ids) for w in windows)
    ids = torch.zeros(len(windows), longest, dtype=torch.long)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, window in enumerate(windows):
        size = len(window.ids)
        ids[row, :size] = torch.tensor(window.ids)
        types[row, :size] = torch.tensor(window.types)
        mask[row, :size] = 1
    return ids, mask, types


def loss_of(logits: torch.Tensor, examples: Sequence[Example], *, soft: float) -> torch.Tensor:
    """Return the loss of a batch: what is known of each output, weighted, and no more."""
    weight = torch.tensor([e.weight for e in examples])
    target = torch.from_numpy(np.stack([e.target for e in examples]))
    known = torch.from_numpy(np.stack([e.known for e in examples]))
    # The risk output is what decides for texts without a clean hazard: it counts threefold.
    scale = torch.ones(BINARY)
    scale[RISK_AT] = 3.0
    binary = F.binary_cross_entropy_with_logits(
        logits[:, :BINARY], target * (1 - 2 * soft) + soft, reduction="none"
    )
    total = ((binary * known * scale).sum(1) * weight).mean()
    kind = torch.from_numpy(np.stack([e.kind for e in examples]))
    surprise = F.cross_entropy(logits[:, SLICES["kind"]], kind, reduction="none")
    total = total + KIND_WEIGHT * (surprise * weight).mean()
    for name, choices in (
        ("severity", [e.severity for e in examples]),
        ("about", [e.about for e in examples]),
    ):
        chosen = torch.tensor(choices)
        if (chosen != OPEN).any():
            total = total + 0.2 * F.cross_entropy(
                logits[:, SLICES[name]], chosen, ignore_index=OPEN, label_smoothing=0.05
            )
    return total


def batches(
    pairs: Sequence[tuple[Example, Window]], size: int, rng: random.Random
) -> Iterator[list[tuple[Example, Window]]]:
    """Yield batches of rows of like length, in random order; lengths decide the cost."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1].ids) + rng.random() * 6)
    starts = list(range(0, len(order), size))
    rng.shuffle(starts)
    for start in starts:
        yield [pairs[i] for i in order[start : start + size]]


def predict(
    network: HazardNetwork, windows: Sequence[Sequence[Window]], *, size: int = 64
) -> NDArray[np.float32]:
    """Return logits for each text, shape (texts, WIDTH), its windows combined."""
    network.eval()
    flat = [(i, w) for i, ws in enumerate(windows) for w in ws]
    flat.sort(key=lambda pair: len(pair[1].ids))
    rows: list[list[NDArray[np.float32]]] = [[] for _ in windows]
    with torch.inference_mode():
        for start in range(0, len(flat), size):
            part = flat[start : start + size]
            logits = network(*collate([w for _, w in part])).float().numpy()
            for (i, _), row in zip(part, logits, strict=True):
                rows[i].append(row)
    return np.stack([combine(np.stack(own)) for own in rows])


def first_windows(
    examples: Sequence[Example], tokenizer: Tokenizer, clean: Clean
) -> list[list[Window]]:
    """Return of each example its first window alone."""
    return [windows[:1] for windows in windows_of(examples, tokenizer, clean)]


def loss_on(
    network: HazardNetwork, examples: Sequence[Example], windows: Sequence[Sequence[Window]]
) -> float:
    """Return the loss of a network on examples, of which it sees the windows given."""
    return float(loss_of(torch.from_numpy(predict(network, windows)), examples, soft=0.0))


def fit(
    encoder: Path,
    tokenizer: Tokenizer,
    train: Sequence[Example],
    dev: Sequence[Example],
    around: Surroundings,
    settings: Settings,
    *,
    run: int = 0,
    clean: Clean,
    report: Callable[[str], None],
) -> tuple[HazardNetwork, list[dict[str, float]]]:
    """Fine-tune end to end and return the best network with the history of its epochs.

    Args:
        encoder: folder of the checkpoint to start from.
        tokenizer: the encoder's.
        train: rows to learn.
        dev: rows that choose the epoch.
        around: what may stand beside a text.
        settings: how it is done.
        run: which of the settings' runs. All start from the same head, or their weights could
            not be averaged; order, forms and dropout are each run's own.
        clean: the normaliser.
        report: told what goes on, a line at a time.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    network = HazardNetwork(encoder)
    torch.manual_seed(settings.seed + run)
    rng = random.Random(settings.seed + run)
    groups = network.parameter_groups(settings.rate, decay=settings.decay)
    # Fused: the usual loop over tensors takes a third of all time on a CPU.
    optimizer = torch.optim.AdamW(groups, fused=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    # The averaged weights generalise better than the last ones and cost nothing to run.
    shadow = copy.deepcopy(network)
    dev_windows = first_windows(dev, tokenizer, clean)

    def sometimes(text: str) -> str:
        # What the normaliser misses or mends in another way tomorrow must not matter.
        return clean(text) if rng.random() < settings.cleaned else text.lower()

    steps, best, history = 0, (float("inf"), network.state_dict()), []
    per_epoch = len(_epoch(train, settings, random.Random(0), around)) // settings.batch + 1
    whole = per_epoch * settings.epochs
    for epoch in range(settings.epochs):
        rows = _epoch(train, settings, rng, around)
        first = [
            (e, w[rng.randrange(len(w))] if e.benign or e.source in LONG else w[0])
            for e, w in zip(rows, windows_of(rows, tokenizer, sometimes), strict=True)
        ]
        network.train()
        started, seen, total = time.monotonic(), 0, 0.0
        for batch in batches(first, settings.batch, rng):
            share = steps / whole
            factor = min(share / settings.warmup, (1 - share) / (1 - settings.warmup))
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * max(factor, 0.01)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(*collate([w for _, w in batch]))
            loss = loss_of(logits.float(), [e for e, _ in batch], soft=settings.soft)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            steps += 1
            keep = min(settings.average, steps / (steps + 20))
            with torch.no_grad():
                for kept, new in zip(shadow.parameters(), network.parameters(), strict=True):
                    kept.lerp_(new, 1 - keep)
            seen, total = seen + len(batch), total + float(loss.detach()) * len(batch)
            if steps % 50 == 0:
                speed = seen / (time.monotonic() - started)
                report(f"step {steps}/{whole} loss {total / seen:.4f} {speed:.0f} texts/s")
        dev_loss = loss_on(shadow, dev, dev_windows)
        history.append({"epoch": epoch + 1, "train": total / seen, "dev": dev_loss})
        report(f"epoch {epoch + 1}: train {total / seen:.4f} dev {dev_loss:.4f}")
        if dev_loss < best[0]:
            best = (dev_loss, copy.deepcopy(shadow.state_dict()))
    shadow.load_state_dict(best[1])
    return shadow.eval(), history


def _epoch(
    train: Sequence[Example], settings: Settings, rng: random.Random, around: Surroundings
) -> list[Example]:
    """Return one epoch's rows: each as it is, and the project's own again in other forms."""
    rows = []
    for example in train:
        if example.own is None:
            # The public sets are large and easy: another part of them each time is enough.
            if example.source in CHILDREN or rng.random() < settings.public_share:
                rows.append(augment(example, rng, around) if rng.random() < 0.5 else example)
        elif example.stage is Stage.OUTPUT:
            # Whole, and as the guard sees it while it arrives: one part of a bad reply, two of a
            # good one, since a reply passes only if every part of it does.
            rows.append(example)
            rows += [augment(example, rng, around) for _ in range(1 + example.benign)]
        else:
            rows.append(example)
            rows += [augment(example, rng, around) for _ in range(settings.copies)]
    return rows
