"""Calls as users write them, in a process where annotations are not executed: what each of them raises."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, sys
setup, calls = json.load(sys.stdin)
names, raised = {}, []
exec(setup, names)
for call in calls:
    try:
        eval(call, names)
        raised.append(["nothing", ""])
    except Exception as error:
        raised.append([type(error).__name__, str(error)])
json.dump(raised, sys.stdout)
"""


def misunderstood(setup: str, calls: Mapping[str, str | None]) -> dict[str, str]:
    """Calls that do not raise a `ValueError` or `TypeError` with that pattern, or raise where there is none."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([setup, list(calls)]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    found = {}
    for (call, pattern), (kind, text) in zip(calls.items(), json.loads(done.stdout), strict=True):
        good = kind in ("ValueError", "TypeError", "MeshError") and pattern is not None and re.search(pattern, text)
        if not (good or (pattern is None and kind == "nothing")):
            found[call] = f"{kind}: {text}"
    return found
