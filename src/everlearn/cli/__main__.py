"""``python -m everlearn.cli`` is the command ``everlearn``."""

from __future__ import annotations

import sys

from everlearn.cli import main

if __name__ == "__main__":
    sys.exit(main())
