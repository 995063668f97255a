"""`kidrails …`: each verb lives in a module of `kidrails_guard.commands`, imported when it runs.

A command module has ``add_arguments(parser)`` and ``run(args) -> int`` and imports nothing heavy
at its top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from kidrails_guard import __version__
from kidrails_guard.errors import KidRailsError, UsageError

VERBS: Final[dict[str, str]] = {
    "up": "engine, guard and chat page in one go",
    "check": "check one text or a file of them",
    "serve": "the guard proxy in front of any OpenAI-compatible server",
    "engine": "the embedded model server, or vLLM",
    "demo": "the chat page in front of a running proxy",
    "policy": "validate, show or compare policies",
    "keys": "add, list or revoke API keys",
    "audit": "verify the audit log, or report from it",
    "doctor": "what is installed, what is missing and the command for it",
    "data": "build, validate and describe the golden data",
    "spectrum": "scan a model's layers, select and show them",
    "recipe": "list, show, render, validate and copy training recipes",
    "train": "train a recipe with axolotl",
    "guard": "train or evaluate the guard's classifier",
    "eval": "run, compare and report evaluations",
}


def _usage() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return (
        "usage: kidrails VERB …\n\nA guard, a recipe pack and evaluations for children aged 5 to "
        f"12 who talk to a language model.\n\nverbs:\n{verbs}\n\n"
        "`kidrails VERB --help` says more. Exit status: 0 fine, 1 a finding or mismatch, 2 wrong "
        "use."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status (0 fine, 1 a finding or mismatch, 2 wrong use)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] in {"-V", "--version"}:
        print(f"kidrails {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        from difflib import get_close_matches

        near = get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"kidrails: {verb!r} is not a verb{hint}\n\n{_usage()}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"kidrails_guard.commands.{verb}")
    parser = argparse.ArgumentParser(prog=f"kidrails {verb}", description=VERBS[verb])
    module.add_arguments(parser)
    try:
        try:
            status = module.run(parser.parse_args(rest))
        except ExceptionGroup as group:
            # Of several tasks at once: what stopped the first is what there is to say.
            raise first_of(group) from group
    except UsageError as error:
        print(f"kidrails {verb}: {error}", file=sys.stderr)
        return 2
    except KidRailsError as error:
        print(f"kidrails {verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`, say) has gone: not an error. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A full disk, a folder that may not be read or written: the operator's to put right.
        place = f"{error.filename}: " if error.filename is not None else ""
        print(f"kidrails {verb}: {place}{error.strerror or error}", file=sys.stderr)
        return 2
    return int(status or 0)


def first_of(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first error in a group that is no group itself."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, ExceptionGroup) else error


if __name__ == "__main__":
    raise SystemExit(main())
