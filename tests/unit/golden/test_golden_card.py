"""The dataset card is what its files give, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from kidrails_guard.golden import card


def test_a_card_with_other_line_ends_is_not_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "blocks", lambda: {"golden": lambda: "| a |\n"})
    path = tmp_path / "README.md"
    good = b"# Card\n\n<!-- begin golden -->\n| a |\n<!-- end golden -->\n"
    path.write_bytes(good)
    assert card.update_card(path, check=True) is False
    crlf = good.replace(b"\n", b"\r\n")
    path.write_bytes(crlf)
    assert card.update_card(path, check=True) is True
    assert path.read_bytes() == crlf
    assert card.update_card(path) is True
    assert path.read_bytes() == good
