"""Guards of other projects that run offline from PyPI, behind one interface, for comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Peer:
    """One other guard.

    Attributes:
        name: its distribution on PyPI.
        load: returns a function from a text to "it would hold this back".
        module: what must be importable.
    """

    name: str
    load: Callable[[], Callable[[str], bool]]
    module: str

    @property
    def installed(self) -> bool:
        """Whether it can be run here."""
        return find_spec(self.module) is not None


def _better_profanity() -> Callable[[str], bool]:
    from better_profanity import profanity

    profanity.load_censor_words()
    return lambda text: bool(profanity.contains_profanity(text))


def _glin() -> Callable[[str], bool]:
    from glin_profanity import Filter

    check: Any = Filter()
    return lambda text: bool(check.is_profane(text))


def _safetype() -> Callable[[str], bool]:
    import safetype

    engine: Any = safetype.create_moderation_engine(mode="mask")
    return lambda text: bool(engine.moderate(text).matches)


def _litellm() -> Callable[[str], bool]:
    """LiteLLM's own content filter with every category of harm that ships, default threshold."""
    import asyncio
    import logging
    import os
    from pathlib import Path

    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    import litellm
    from litellm.proxy.guardrails.guardrail_hooks.litellm_content_filter import content_filter

    folder = Path(litellm.__file__).parent / "proxy/guardrails/content_filter_data/categories"
    wanted = (
        "harm_toxic_abuse",
        "harmful_",
        "bias_",
        "prompt_injection_jailbreak",
        "denied_insults",
    )
    names = sorted(p.stem for p in folder.iterdir() if p.stem.startswith(wanted))
    guard = content_filter.ContentFilterGuardrail(
        guardrail_name="peer",
        categories=[
            {"category": name, "enabled": True, "action": "BLOCK", "severity_threshold": "medium"}
            for name in names
        ],
    )
    logging.getLogger("LiteLLM Proxy").setLevel(logging.CRITICAL)  # it logs what it blocks
    loop = asyncio.new_event_loop()

    def holds_back(text: str) -> bool:
        try:
            loop.run_until_complete(
                guard.apply_guardrail(
                    inputs={"texts": [text]}, request_data={}, input_type="request"
                )
            )
        except Exception:
            return True
        return False

    return holds_back


PEERS: Final = (
    Peer("litellm content filter", _litellm, "litellm"),
    Peer("glin-profanity", _glin, "glin_profanity"),
    Peer("safetype", _safetype, "safetype"),
    Peer("better-profanity", _better_profanity, "better_profanity"),
)
