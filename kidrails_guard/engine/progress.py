"""Progress bars for starting and converting, on stderr, absent without a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from kidrails_guard.engine.base import Engine, Phase

_WORDS: Final = {
    Phase.STARTING: "starting the model server",
    Phase.LOADING: "loading the model",
    Phase.READY: "ready",
}


def _bar(**options: Any) -> Any:
    from tqdm import tqdm

    # disable=None: only where stderr is a terminal.
    return tqdm(disable=None, leave=False, **options)


@contextlib.contextmanager
def tensor_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback for (tensors done, tensors in all) that draws a bar.

    Args:
        what: what is being done, such as ``export``.
    """
    with _bar(desc=what, unit=" tensors") as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


def wait_ready(engine: Engine, *, timeout_s: float | None = None) -> None:
    """Wait until an engine answers, with a line that says what it is doing.

    Raises:
        EngineError: it died or took too long.
    """
    with _bar(bar_format="{desc} {elapsed}", desc=_WORDS[Phase.STARTING]) as bar:

        def show(phase: Phase, _elapsed_s: float) -> None:
            bar.set_description_str(_WORDS[phase])

        engine.wait_ready(timeout_s=timeout_s, progress=show)
