"""Random damage to geometry files, and a reader of such files with limits: seeds and formats in, findings out.

`python -m tests.nurbs.files.mutations FOLDER SEED COUNT` mutates the files of a folder in turn and prints, for each
mutation that gives anything but patches or a `GeometryError` within the limits, a line; last "done" and the counts.
"""

import random
import re
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

SECONDS, BYTES = 5, 2**30
WORDS = [b"0", b"1", b"-1", b"2", b"1e308", b"-1e308", b"1e-308", b"nan", b"inf", b"999999999", b"2147483648", b"1.5"]
WORDS += [
    b"$",
    b"*",
    b"()",
    b"(",
    b")",
    b"''",
    b"'",
    b",",
    b";",
    b"#1",
    b".T.",
    b".F.",
    b"#999999",
    b"1E400",
    b"[]",
    b"{}",
]
WORDS += [b"null", b"\x00", b"\xff\xfe", b"\n", b"\r", b" ", b"/*", b"*/", b"[[[[", b"9" * 400, b"1H,", b"99999999H"]
TOKEN = re.compile(rb"[+-]?\d+\.?\d*(?:[EeDd][+-]?\d+)?|[A-Za-z_]+|#\d+|[(),;'.]")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to three pieces of damage."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        kind, place = chance.randrange(10), chance.randrange(max(len(data), 1))
        tokens, lines = list(TOKEN.finditer(data)), data.split(b"\n")
        token, other = (chance.choice(tokens) if tokens else None for _ in range(2))
        line = chance.randrange(len(lines))
        if kind == 0:
            data = data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + data[place + chance.randrange(1, 40) :]
        elif kind == 2:
            data = data[:place]
        elif kind == 3:
            data = data[:place] + chance.choice(WORDS) + data[place:]
        elif kind in (4, 5) and token:
            data = data[: token.start()] + chance.choice(WORDS) + data[token.end() :]
        elif kind in (6, 7) and token and other:
            data = data[: token.start()] + other[0] + data[token.end() :]
        elif kind == 8:
            data = b"\n".join(lines[:line] + lines[line + 1 :])
        else:
            data = b"\n".join([*lines[:line], lines[chance.randrange(len(lines))], *lines[line:]])
    return data


def limit(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def run(folder: Path, seed: int, count: int) -> None:
    import resource

    from nurbs import GeometryError, read_geometry

    files = sorted(f for f in folder.iterdir() if f.is_file())
    for file in files:  # warm up, whole files are read
        read_geometry(file)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, held + BYTES))
    signal.signal(signal.SIGALRM, limit)
    counts: Counter[str] = Counter()
    damaged = folder / "damaged"
    damaged.mkdir(exist_ok=True)
    for i in range(count):
        chance, source = random.Random(1_000_003 * seed + i), files[i % len(files)]
        path = damaged / f"{seed}-{i}{source.suffix}"
        path.write_bytes(mutated(source.read_bytes(), chance))
        start, bad = time.monotonic(), ""
        signal.alarm(SECONDS)
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                patches = read_geometry(path)
                counts["warned" if said else "read"] += 1
                if len(patches) != len(patches.names) or not all(p.control_points.isfinite().all() for p in patches):
                    bad = "patches that are none"
                if other := [w for w in said if not str(w.message).startswith(str(path))]:
                    bad = f"a warning of its own: {other[0].message}"
        except GeometryError as error:
            counts["refused"] += 1
            if not str(error).startswith(f"cannot read {path}: ") or len(str(error)) > 2000:
                bad = f"a message without the file, or too long: {str(error)[:300]}"
        except BaseException as error:
            bad = f"{type(error).__name__}: {error} {traceback.extract_tb(error.__traceback__)[-1]}"
        signal.alarm(0)
        if bad or time.monotonic() - start > SECONDS:
            print(path, source.name, round(time.monotonic() - start, 1), bad, flush=True)
        else:
            path.unlink()
    print("done", *(f"{name} {number}" for name, number in sorted(counts.items())))


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
