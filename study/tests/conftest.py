"""Makes the study, what it uses and the helpers of tests/ importable from wherever pytest is started."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("plots", "study", "tools", "tests", ".")]
