"""A GGUF file behind the embedded engine, and what it says."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from kidrails_guard.engine.launch import EngineOptions, plan_engine
from kidrails_guard.engine.process import EngineProcess


class Served:
    """Serves a file while a ``with`` block runs.

    Args:
        file: the GGUF file.
        adapter: a LoRA adapter as GGUF.
    """

    def __init__(self, file: Path, *, adapter: Path | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = EngineOptions(model=str(file), adapter=adapter, port=port, context=512, threads=1)
        self._process = EngineProcess(plan_engine(options))

    def __enter__(self) -> Served:
        self._process.start()
        try:
            self._process.wait_ready()
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def post(self, path: str, **body: Any) -> Any:
        root = self._process.url.removesuffix("/v1")
        return httpx.post(root + path, json=body, timeout=120).json()

    def next_tokens(self, prompt: Sequence[int] | str) -> dict[int, float]:
        """Return the log-likelihoods of the 40 likeliest next tokens."""
        body = {"n_predict": 1, "n_probs": 40, "temperature": 0}
        reply = self.post("/completion", prompt=prompt, **body)
        tokens = reply["completion_probabilities"][0]["top_logprobs"]
        return {token["id"]: token["logprob"] for token in tokens}

    def ids(self, text: str) -> list[int]:
        return list(self.post("/tokenize", content=text, parse_special=True)["tokens"])

    def words(self, messages: list[dict[str, str]], limit: int) -> tuple[str, bool]:
        """Return the greedy reply, and whether it came to its end."""
        reply = self.post(
            "/v1/chat/completions", messages=messages, temperature=0, max_tokens=limit
        )
        choice = reply["choices"][0]
        return choice["message"]["content"], choice["finish_reason"] == "stop"
