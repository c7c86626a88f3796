"""Whatever is wrong with a file ends in one `MeshError` that names file and cause, soon and in little memory."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fem.errors import MeshError
from fem.files.reading import read_mesh
from fem.mesh.geometry import cell_domains, geometry
from tests.fem.files.broken_files import MEASURES, SOUND, all_of_them, write


@pytest.mark.parametrize("name", SOUND)
def test_the_files_that_are_broken_below_are_sound(name: str, tmp_path: Path):
    mesh = read_mesh(write(tmp_path, name, SOUND[name]))
    (domain,) = cell_domains(mesh, 2)
    part = geometry(mesh, domain)
    assert float(part.weights.expand(part.points.shape[:2]).sum()) == pytest.approx(MEASURES.get(name, 1.0))


ENCODINGS = {
    "ends of lines as Windows has them": lambda data: data.replace(b"\n", b"\r\n"),
    "a mark in front": lambda data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "the other UTF-16": lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be"),
    "no end of the last line": bytes.rstrip,
    "blank lines at the end": lambda data: data + b"\n\n  \n",
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(name: str, encoding: str, tmp_path: Path):
    for part in ("a.node", "a.ele") if name in ("a.node", "a.ele") else (name,):
        (tmp_path / part).write_bytes(ENCODINGS[encoding](SOUND[part]))
    assert read_mesh(tmp_path / name).num_cells == (1 if name in MEASURES else 2)


@pytest.mark.parametrize(("name", "data", "cause"), all_of_them(), ids=[name for name, *_ in all_of_them()])
def test_broken_files(name: str, data: bytes, cause: str, tmp_path: Path, capfd: pytest.CaptureFixture):
    path = write(tmp_path, name, data)
    with pytest.raises(MeshError, match=cause or name) as error:
        read_mesh(path)
    said = str(error.value)
    assert name in said
    assert said.endswith((".", ")"))
    assert not any(inside in said for inside in ("KeyError", "IndexError", "Traceback", "numpy", "object at 0x"))
    assert capfd.readouterr() == ("", "")


LIMITED = """
    import resource, signal, sys, warnings
    from pathlib import Path
    from fem.errors import MeshError
    from fem.files.reading import read_mesh
    import h5py, meshio, netCDF4

    def late(*_):
        raise BaseException("five seconds of work")

    signal.signal(signal.SIGPROF, late)
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + 2**30, own + 2**30))
    for path in sorted(Path(sys.argv[1]).iterdir()):
        signal.setitimer(signal.ITIMER_PROF, 5)
        try:
            read_mesh(path)
        except MeshError:
            pass
        except BaseException as error:
            print(path.name, repr(error))
        signal.setitimer(signal.ITIMER_PROF, 0)
    print("all", len(list(Path(sys.argv[1]).iterdir())))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory as Linux knows them")
def test_all_of_them_in_five_seconds_and_a_gigabyte_each(tmp_path: Path):
    pytest.importorskip("h5py")
    pytest.importorskip("netCDF4")
    for name, data, _ in all_of_them():
        write(tmp_path, name, data)
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False)
    assert (done.stdout.split()[:1], done.stderr[-1000:]) == (["all"], "")
