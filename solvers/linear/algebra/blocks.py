"""Sparse matrices of dense blocks, of one size in each matrix: what couples nodes with a few unknowns each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fem.forms.assembly import sparse_csr
from fem.support.c_function import CFunction, c_text


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """Rows of blocks `values[crow[i] : crow[i + 1]]` in columns of blocks `column`, on the CPU, indices in 32 bits."""

    crow: Int[Tensor, "n1"]
    column: Int[Tensor, "z"]
    values: Float[Tensor, "z r c"]
    columns: int

    @property
    def rows(self) -> int:
        return len(self.crow) - 1

    @property
    def numbers(self) -> int:
        """Rows of numbers."""
        return self.rows * self.values.shape[1]

    @property
    def row(self) -> Int[Tensor, "z"]:
        return torch.repeat_interleave(torch.arange(self.rows, dtype=torch.int32, device="cpu"), self.crow.diff())

    def scipy(self) -> Any:
        import scipy.sparse

        _, r, c = self.values.shape
        arrays = self.values.numpy(), self.column.numpy(), self.crow.numpy()
        return scipy.sparse.bsr_matrix(arrays, shape=(self.rows * r, self.columns * c))

    def in_blocks(self, size: int) -> "BlockMatrix":
        """The same, of numbers, as a matrix of square blocks."""
        if size == 1:
            return self
        return of_scipy(self.scipy().tocsr().tobsr((size, size)))

    def csr(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The same as a sparse tensor of numbers."""
        arrays, shape = (self.crow, self.column, self.values.flatten()), (self.rows, self.columns)
        if self.values.shape[1:] != (1, 1):
            matrix = self.scipy().tocsr()
            arrays, shape = [torch.from_numpy(a) for a in (matrix.indptr, matrix.indices, matrix.data)], matrix.shape
        crow, column, values = (a.to(device) for a in arrays)
        return sparse_csr(crow.int(), column.int(), values.to(dtype), shape)

    def transposed(self) -> "BlockMatrix":
        import scipy.sparse

        number = np.arange(len(self.column), dtype=np.int32)
        arrays = number, self.column.numpy(), self.crow.numpy()
        turned = scipy.sparse.csr_matrix(arrays, shape=(self.rows, self.columns)).tocsc()
        order, indices, indptr = (torch.from_numpy(a) for a in (turned.data, turned.indices, turned.indptr))
        return BlockMatrix(indptr, indices, self.values[order].mT.contiguous(), self.rows)

    def scaled(self, left: Float[Tensor, "n r"] | None, right: Float[Tensor, "m c"] | None) -> "BlockMatrix":
        """The matrix with its rows and columns multiplied."""
        values = self.values
        if left is not None:
            values = values * left[self.row][:, :, None]
        if right is not None:
            values = values * right[self.column][:, None]
        return BlockMatrix(self.crow, self.column, values, self.columns)

    def diagonal(self) -> Float[Tensor, "n r"]:
        """The diagonal of a square matrix."""
        row, own = self.row, self.values.new_zeros(self.rows, self.values.shape[1])
        on = torch.nonzero(row == self.column).flatten()
        return own.index_add(0, row[on], self.values[on].diagonal(dim1=1, dim2=2))

    def __matmul__(self, other: "BlockMatrix") -> "BlockMatrix":
        found = compiled_product(self, other)
        if found is not None:
            return found
        return of_scipy(self.scipy() @ other.scipy())


def of_scipy(matrix: Any) -> BlockMatrix:
    """From a `bsr_matrix`."""
    crow, column, values = (torch.from_numpy(a) for a in (matrix.indptr, matrix.indices, matrix.data))
    return BlockMatrix(crow.int(), column.int(), values, matrix.shape[1] // matrix.blocksize[1])


def compiled_product(left: BlockMatrix, right: BlockMatrix) -> BlockMatrix | None:
    """The product by C code (`block_product.c`); None where nothing is compiled for it."""
    (r, k), s = left.values.shape[1:], right.values.shape[2]
    text = c_text("solvers.linear.algebra", "block_product.c")
    product = CFunction(text, T=left.values.dtype, R=r, K=k, S=s)
    if not product.ready(left.values.numel() * s * max(len(right.column) // max(right.rows, 1), 1)):
        return None
    room = int(right.crow.diff()[left.column].sum())  # pages that nothing is written to take no memory
    if room >= 2**31:
        return None
    crow = torch.zeros(left.rows + 1, dtype=torch.int32, device="cpu")
    column, values = torch.empty(room, dtype=torch.int32, device="cpu"), left.values.new_empty(room, r, s)
    arrays = [t for m in (left, right) for t in (m.crow, m.column, m.values)]
    count = product(left.rows, right.columns, *arrays, crow, column, values)
    if count < 0:
        raise MemoryError("a product of sparse matrices does not fit into memory.")
    return BlockMatrix(crow, column[:count], values[:count], right.columns)
