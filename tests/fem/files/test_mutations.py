"""Damaged files of all formats: what is read has the right measure, or says truly another, or it is one `MeshError`."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fem.files.mutated_files import late, sound_files, wrong

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory and time as Linux knows them")


@linux
def test_some_mutations(tmp_path: Path):
    pytest.importorskip("h5py")
    (tmp_path / "sound").mkdir()
    before = signal.signal(signal.SIGPROF, late)
    try:
        files = sound_files(tmp_path / "sound")
        assert len({path.name.split("-")[0] for path in files}) > 35
        assert wrong(files, tmp_path, 0, 200) == []
    finally:
        signal.signal(signal.SIGPROF, before)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_thousand_mutations(seed: int, tmp_path: Path):
    pytest.importorskip("h5py")
    command = [sys.executable, "-m", "tests.fem.files.mutated_files", str(tmp_path / "files"), str(seed), "1000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
    assert (done.stdout.strip(), done.stderr[-2000:]) == ("", "")
