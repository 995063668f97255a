"""The network: an encoder with one linear layer over what its tokens say. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from kidrails_guard.classifier.labels import WIDTH


class HazardNetwork(nn.Module):  # type: ignore[misc]  # torch is not looked into
    """Encoder, pooled over the text's own tokens, and one logit an output.

    The mean says what a text is about; the maximum keeps one grave clause in a long text.

    Args:
        encoder: folder of a BERT checkpoint.
        dropout: before the linear layer.
    """

    def __init__(self, encoder: Path, *, dropout: float = 0.1) -> None:
        super().__init__()
        # No dropout inside the encoder: in a single pass over so much text it only slows both the
        # learning and the machine (docs/classifier.md has the figures).
        self.encoder = AutoModel.from_pretrained(
            encoder,
            add_pooling_layer=False,
            attn_implementation="eager",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        width = self.encoder.config.hidden_size
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * width, WIDTH)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return logits.

        Args:
            input_ids: shape (rows, tokens).
            attention_mask: the same shape, 1 for tokens and 0 for padding.
            token_type_ids: 0 for the text, 1 for the turns before it.

        Returns:
            Shape (rows, `WIDTH`).
        """
        hidden = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        own = (attention_mask * (1 - token_type_ids)).unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * own).sum(1) / own.sum(1)
        peak = (hidden + (own - 1) * 1e4).max(1).values
        logits: torch.Tensor = self.head(self.dropout(torch.cat([mean, peak], -1)))
        return logits

    def parameter_groups(self, rate: float, *, decay: float) -> list[dict[str, Any]]:
        """Return the optimizer's groups: lower layers learn slower, the head faster."""
        layers = self.encoder.config.num_hidden_layers
        groups: list[dict[str, Any]] = []
        for name, parameter in self.named_parameters():
            if name.startswith("head"):
                factor = 10.0
            elif ".layer." in name:
                depth = int(name.split(".layer.")[1].split(".")[0])
                factor = 0.85 ** (layers - 1 - depth)
            else:
                factor = 0.85**layers
            plain = parameter.ndim == 1
            groups.append(
                {"params": [parameter], "lr": rate * factor, "weight_decay": 0 if plain else decay}
            )
        return groups
