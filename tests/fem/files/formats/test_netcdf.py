"""The head of a classic netCDF file is followed to its end; no count in it is believed that cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fem.errors import MeshError
from fem.files.formats.netcdf import check_head

netcdf: Any = pytest.importorskip("netCDF4")


@pytest.fixture(params=["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    with netcdf.Dataset(str(tmp_path / "m.nc"), "w", format=request.param) as file:
        file.title, file.version = "a title", np.float32(5.1)
        file.createDimension("n", 5)
        file.createDimension("time", None)
        variable = file.createVariable("values", "f8", ("time", "n"))
        variable[:] = np.ones((2, 5))
        variable.unit = "m"
    return (tmp_path / "m.nc").read_bytes()


def test_sound_heads(data: bytes):
    check_head(data)


def test_damaged_heads(data: bytes):
    """A byte of the head set to 255 is part of a name, does no harm, or is refused; and so is a file cut off."""
    end = data.index(b"values") + 8
    refused = 0
    for at in range(4, end):
        try:
            check_head(data[:at] + b"\xff" + data[at + 1 :])
        except MeshError:
            refused += 1
        with pytest.raises(MeshError, match=r"cut off|announced"):
            check_head(data[:at])
    assert refused > 20
