"""KidRails as a Space: model, guard and page in one container.

Put this folder's files into a Space with the Docker SDK; README.md says how.
"""

import os
from pathlib import Path

# A container forgets its home folder; a Space's persistent storage is mounted at /data.
if Path("/data").is_dir() and os.access("/data", os.W_OK):
    os.environ.setdefault("KIDRAILS_CONFIG", "/data/kidrails/config")
    os.environ.setdefault("KIDRAILS_STATE", "/data/kidrails/state")

from kidrails_guard.cli import main

if __name__ == "__main__":
    raise SystemExit(
        main(
            [
                "up",
                "--host=0.0.0.0",
                "--port=7860",
                "--no-browser",
                "--frame-ancestors=https://huggingface.co",
            ]
        )
    )
