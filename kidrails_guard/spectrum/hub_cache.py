"""Looks for a model in the cache of the Hugging Face Hub, without asking the network."""

from __future__ import annotations

from pathlib import Path


def cached_folder(model: str, *, revision: str | None = None) -> Path | None:
    """Return the folder of a model that was fetched earlier.

    Args:
        model: an id on the Hub, such as ``owner/name``.
        revision: branch, tag or commit; the main branch where None.

    Returns:
        The snapshot, whatever of it was fetched; None where there is none, or ``huggingface-hub``
        is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
