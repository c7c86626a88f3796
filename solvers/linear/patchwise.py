"""Fast diagonalisation on patches of splines, one or several: what is separable in each patch's parameters.

Coefficients of reference derivatives are taken as products of one function per direction,

    C_kk(ξ) ≈ s_k τ_k(ξ_k) Π_{l≠k} μ_l(ξ_l),    L = Σ_k s_k K_k(τ_k) ⊗ (M_l(μ_l) on the other axes) + s_0 M ⊗ … ⊗ M,

by their sums over planes: exact for coefficients that are such products, as those of an annulus are. Generalised modes
of each pair (K_k, M_k) make L diagonal. Patches that are glued make up L = Σ_i R_iᵀ L_i R_i, whose inverse takes two
solves L_i⁻¹ on each patch, free at the seams Γ_i, and one with S = Σ_i R_iᵀ S_i R_i between the functions at seams,

    S_i = ((L_i⁻¹)_ΓΓ)⁻¹,    y_i = L_i⁻¹ r_i,    S u_Γ = r_Γ + Σ_i S_i y_i,    u_i = y_i + L_i⁻¹ S_i (u_Γ − y_i),

where r_i leaves out the seams, so that iterations do not depend on the number of spans.

Sources: G. Sangalli and M. Tani, Isogeometric preconditioners based on fast solvers for the Sylvester equation, SIAM J.
Sci. Comput. 38, 2016; for several patches, with the same local solvers, M. Bosy, M. Montardini, G. Sangalli and
M. Tani, A domain decomposition method for isogeometric multi-patch problems with inexact local solvers, Comput. Math.
Appl. 80, 2020.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from fem.space.factors import along
from fem.space.space import AnySpace, FunctionSpace
from fem.support.arithmetic import sum_of
from solvers.linear.axis_modes import eigenvectors
from solvers.linear.conjugate_gradients import Jacobi
from solvers.linear.separable import definite, largest, tensor_sum
from solvers.operators.system import System
from solvers.operators.tensor_operator import PatchPart, TensorOperator

INTERFACE = 6000  # functions at seams up to which the matrix S is factorised
FLOATING = 1e-2  # what a patch that nothing holds gets for constants, relative to its next eigenvalue


class PatchModes:
    """L on one patch for one component, diagonal in modes; dofs are "b (z) y x".

    Attributes:
        numbers: of the patch's dofs among those of the space "(z) y x"; those of sides that are held are left out.
    """

    def __init__(
        self,
        parts: Sequence[PatchPart],
        entries: Sequence[int],
        lattice: Tensor,
        folds: Sequence[int],
        fixed: Bool[Tensor, "n"],
    ):
        r = lattice.ndim
        box = []
        for axis, fold in enumerate(folds):
            lattice = lattice.narrow(axis, 0, lattice.shape[axis] - fold)
        for axis in range(r):
            ends = [not folds[axis] and bool(fixed[lattice.select(axis, e)].all()) for e in (0, -1)]
            box.append(slice(int(ends[0]), lattice.shape[axis] - int(ends[1])))
        self.held = [(s.start > 0, s.stop < n) for s, n in zip(box, lattice.shape, strict=True)]
        self.numbers = lattice[tuple(box)].permute(*range(r)[::-1]).contiguous()
        profiles, sizes = profiles_of(parts, entries)
        modes, diagonals = [], ([], [])
        for axis, (fold, free) in enumerate(zip(folds, box, strict=True)):
            value, slope = (
                torch.cat([folded(p.basis.matrix(axis, o), fold)[:, free] for p in shared(parts, axis)]) for o in (0, 1)
            )
            tau, mu = profiles[axis]
            K, M = ((A.mT * w[:, None].to(A)) @ A for A, w in ((slope, tau), (value, mu)))
            kappa, vectors = eigenvectors(K.double(), M.double())
            if not any(self.held[axis]):
                kappa[:, 0] = 0  # of the constant, not round-off
            modes.append((kappa, vectors))
            for found, matrix in zip(diagonals, (K, M), strict=True):
                found.append(matrix.diagonal(dim1=-2, dim2=-1).double())
        ones = [torch.ones_like(kappa) for kappa, _ in modes]
        scaled = lambda found: [s[:, None] * k for s, k in zip(sizes, found, strict=False)]  # noqa: E731
        self.eigenvalues = tensor_sum(scaled([kappa for kappa, _ in modes]), ones, sizes[r])
        self.diagonal = tensor_sum(scaled(diagonals[0]), diagonals[1], sizes[r])
        self.vectors = [V for _, V in modes]

        inverse = definite(self.eigenvalues)
        null = self.eigenvalues.abs() <= torch.finfo(inverse.dtype).eps * largest(self.eigenvalues)
        self.inverse = torch.where(null, inverse / FLOATING, inverse)

    def convert(self, dtype: torch.dtype) -> None:
        """Solve in this precision from now on."""
        self.inverse, self.vectors = self.inverse.to(dtype), [V.to(dtype) for V in self.vectors]

    def solve(self, r: Float[Tensor, "b *n"]) -> Float[Tensor, "b *n"]:
        """L⁻¹ r."""
        for axis, V in enumerate(self.vectors):
            r = transformed(V.mT, r, -1 - axis)
        r = r * self.inverse
        for axis, V in enumerate(self.vectors):
            r = transformed(V, r, -1 - axis)
        return r


def transformed(V: Float[Tensor, "b m n"], values: Float[Tensor, "b *n"], axis: int) -> Float[Tensor, "b *m"]:
    """The matrices times the values along a (negative) axis."""
    return along(V[0] if len(V) == 1 else V, values, axis, values.ndim - 1)


def profiles_of(parts: Sequence[PatchPart], entries: Sequence[int]) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """τ and μ "b k" at the 1-D points of each direction, and s_k of each derivative and the value, "b" each.

    Args:
        parts: of one patch, layer after layer.
        entries: of û, ∂û/∂ξ_x, …, the value first.
    """
    r = len(parts[0].basis.num_spans)
    sums = [merged([p.along(m) for p in parts], r, parts) for m in (*entries[1:], entries[0])]
    known = [s for s in sums if s is not None]
    count = max(len(s[0]) for s in known)
    sizes = [known[0][0].new_zeros(count) if s is None else s[0].sum(1).expand(count) for s in sums]
    shares = [None if s is None else [w / w.sum(1, keepdim=True).clamp(min=1e-300) for w in s] for s in sums]
    profiles = []
    for axis in range(r):
        others = [s[axis] for k, s in enumerate(shares[:r]) if s is not None and k != axis]
        others = others or [s[axis] for s in shares if s is not None]
        own = shares[axis]
        mu = sum_of(others) / len(others)
        profiles.append((torch.zeros_like(mu) if own is None else own[axis], mu))
    return profiles, sizes


def merged(found: Sequence[list[Tensor] | None], r: int, parts: Sequence[PatchPart]) -> list[Tensor] | None:
    """Sums over planes of the layers of a patch together."""
    if all(f is None for f in found):
        return None
    like = next(f for f in found if f is not None)
    full = [
        f
        if f is not None
        else [w.new_zeros(1, n * q) for w, n, q in zip(like, p.basis.num_spans, p.basis.num_points, strict=True)]
        for f, p in zip(found, parts, strict=True)
    ]
    return [*[sum(f[axis] for f in full) for axis in range(r - 1)], torch.cat([f[-1] for f in full], 1)]  # type: ignore[list-item]


def shared(parts: Sequence[PatchPart], axis: int) -> Sequence[PatchPart]:
    """The parts whose 1-D points along an axis differ."""
    return parts if axis == len(parts[0].basis.num_spans) - 1 else parts[:1]


def folded(A: Float[Tensor, "k n"], fold: int) -> Float[Tensor, "k m"]:
    """Functions of which the last are the first ones again."""
    n = A.shape[1] - fold
    return A[:, :n] + pad(A[:, n:], (0, n - fold)) if fold else A


class Interface:
    """The functions at seams, and what patches have to do with them.

    Args:
        shared: dofs "m" that several patches have, or one has twice.
    """

    def __init__(self, patches: Sequence[PatchModes], shared: Int[Tensor, "m"], count: int):
        self.patches, self.dofs = patches, shared
        place = torch.full((count,), -1, dtype=torch.int64, device=shared.device)
        place[shared] = torch.arange(len(shared), device=shared.device)
        total, self.local = None, []
        for patch in patches:
            own = place[patch.numbers.flatten()]
            position = (own >= 0).nonzero()[:, 0]
            at = own[position]
            G = seam_inverse(patch, position)
            S = torch.cholesky_inverse(torch.linalg.cholesky(G))
            if total is None:
                total = S.new_zeros(len(S), len(shared), len(shared))
            if len(S) > len(total):
                total = total.expand(len(S), -1, -1).clone()
            total[:, at[:, None], at] += S
            self.local.append((position, at, S))
        assert total is not None
        self.factor = torch.linalg.cholesky(total)

    def convert(self, dtype: torch.dtype) -> None:
        """Solve in this precision from now on."""
        self.local = [(position, at, S.to(dtype)) for position, at, S in self.local]
        self.factor = self.factor.to(dtype)

    def solve(self, r: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """L⁻¹ r."""
        load, found = r[:, self.dofs], []
        for patch, (position, at, S) in zip(self.patches, self.local, strict=True):
            own = r[:, patch.numbers].flatten(1)
            own[:, position] = 0
            y = patch.solve(own.view(len(r), *patch.numbers.shape)).flatten(1)
            found.append(y)
            load.index_add_(1, at, (S @ y[:, position, None])[..., 0])
        u = torch.cholesky_solve(load[..., None], self.factor)[..., 0]
        z = torch.zeros_like(r)
        for patch, (position, at, S), y in zip(self.patches, self.local, found, strict=True):
            own = torch.zeros_like(y)
            own[:, position] = (S @ (u[:, at] - y[:, position])[..., None])[..., 0]
            own = y + patch.solve(own.view(len(r), *patch.numbers.shape)).flatten(1)
            z[:, patch.numbers.flatten()] = own
        z[:, self.dofs] = u
        return z


def seam_inverse(patch: PatchModes, position: Int[Tensor, "m"]) -> Float[Tensor, "b m m"]:
    """(L⁻¹)_ΓΓ between functions of a patch, all of which are first or last along some axis.

    Side by side of the patch: between two sides, axes that neither is normal to, or one, or both are sums over modes.
    """
    shape, r = patch.numbers.shape, patch.numbers.ndim
    index = torch.unravel_index(position, shape)[::-1]  # x first
    sides: list[tuple[int, int, Tensor]] = []
    for axis in range(r):
        for end in (0, shape[r - 1 - axis] - 1):
            on = (index[axis] == end).nonzero()[:, 0]
            whole = prod(shape) // shape[r - 1 - axis]
            if len(on) == whole:  # not the edges of sides alone
                sides.append((axis, end, on))
    T = patch.inverse
    G = T.new_zeros(len(T), len(position), len(position))
    letters = "xyz"[:r]
    for a, e, rows in sides:
        for b, f, columns in sides:
            operands, names, out = [T], ["n" + letters[::-1]], [[], []]
            vectors, matrices = [], []
            for k, V in enumerate(patch.vectors):
                mode = letters[k]
                for side, (axis, end) in enumerate(((a, e), (b, f))):
                    if k == axis:
                        vectors.append((V[:, end], "n" + mode))
                    else:
                        row = "pqr"[k] if side == 0 else "stu"[k]
                        matrices.append((V, f"n{row}{mode}"))
                        out[side].insert(0, row)
            for operand, name in (*vectors, *matrices):
                operands.append(operand)
                names.append(name)
            block = contracted(operands, names, "n" + "".join(out[0]) + "".join(out[1]))
            size = [prod(shape) // shape[r - 1 - k] for k in (a, b)]
            block = block.reshape(len(block), *size)
            picked = []
            for axis, on in ((a, rows), (b, columns)):
                flat, stride = torch.zeros_like(on), 1
                for k in range(r):
                    if k != axis:
                        flat, stride = flat + stride * index[k][on], stride * shape[r - 1 - k]
                picked.append(flat)
            G[:, rows[:, None], columns] = block[:, picked[0][:, None], picked[1]]
    return G


def contracted(operands: list[Tensor], names: list[str], out: str) -> Tensor:
    """An einsum, two operands after another; an axis is summed over with the last operand that has it."""
    value, name = operands[0], names[0]
    for i in range(1, len(operands)):
        later = set("".join(names[i + 1 :])) | set(out)
        after = "".join(c for c in dict.fromkeys(name + names[i]) if c in later)
        value, name = torch.einsum(f"{name},{names[i]}->{after}", value, operands[i]), after
    return torch.einsum(f"{name}->{out}", value)


def patches_of(space: Any) -> tuple[list[list[int]], Int[Tensor, "m"]]:
    """How many functions at the end of each direction of each patch are its first again, and the dofs that patches
    share beyond that."""
    mesh, folds = space.mesh, []
    for i, (patch, element) in enumerate(zip(mesh.patches, mesh.elements, strict=True)):
        rings = {s.one.axis for s in mesh.seams if s.closes(i)}
        pairs = enumerate(zip(patch.periodic, element.degrees, strict=True))
        folds.append([p if closed else int(axis in rings) for axis, (closed, p) in pairs])
    times = torch.zeros(space.num_nodes, dtype=torch.int64, device=space.device)
    for lattice, fold in zip(space.lattices, folds, strict=True):
        for axis, n in enumerate(fold):
            lattice = lattice.narrow(axis, 0, lattice.shape[axis] - n)
        times += torch.bincount(lattice.flatten(), minlength=len(times))
    return folds, (times > 1).nonzero()[:, 0]


def serves(space: AnySpace) -> bool:
    """Whether a space is one of plain splines on patches with few enough functions at seams."""
    if not isinstance(space, FunctionSpace) or not hasattr(space.quadrature, "patch_basis") or space.mesh.dim < 2:
        return False
    plain = all(space.quadrature.patch_basis(d) is not None for d in space.quadrature.wholes())  # type: ignore[attr-defined]
    return plain and len(patches_of(space)[1]) <= INTERFACE


def patchwise(system: System, operator: TensorOperator, scaled: bool) -> Callable[[Tensor], Tensor]:
    """z ≈ H⁻¹ r for splines on patches; where seams have too many functions patches are solved for by themselves.

    Args:
        scaled: z = S L⁻¹ S r with S² = diag(L) / diag(H).
    """
    space: Any = system.form.space
    folds, shared_dofs = patches_of(space)
    c, count, r = space.components or 1, space.num_nodes, space.mesh.dim
    items = prod(system.batch)
    fixed = system.fixed
    held = torch.zeros(count, c, dtype=torch.bool, device=space.device)
    if fixed is not None:
        held = fixed.reshape(-1, count, c).all(0)
    entries = [[k, *(c + k * r + axis for axis in range(r))] for k in range(c)]
    blocks = [[p for p in operator.parts if p.block == i] for i in range(len(folds))]
    if not all(any(p.has(m) for p in parts for m in own) for parts in blocks for own in entries):
        return Jacobi().preconditioner(system)  # nothing there is separable
    diagonal = system.diagonal.expand(*system.batch, *space.shape).reshape(items, count, c)
    solves = []
    for k, own in enumerate(entries):
        patches = [PatchModes(*place, held[:, k]) for place in zip(blocks, repeat(own), space.lattices, folds)]
        # Between patches S would jump, and what is scaled by it would have large slopes at seams.
        solves.append(component(patches, shared_dofs, diagonal[..., k], scaled and len(shared_dofs) == 0))

    def precondition(residual: Tensor) -> Tensor:
        flat = residual.expand(*system.batch, *space.shape).reshape(items, count, c)
        z = torch.stack([solve(flat[..., k]) for k, solve in enumerate(solves)], -1).reshape(
            *system.batch, *space.shape
        )
        return z if fixed is None else z.masked_fill(fixed, 0)

    return precondition


def component(
    patches: Sequence[PatchModes], shared_dofs: Tensor, diagonal: Float[Tensor, "b n"], scaled: bool
) -> Callable[[Float[Tensor, "b n"]], Float[Tensor, "b n"]]:
    """The inverse for one component."""
    S, count = torch.ones_like(diagonal), diagonal.shape[1]
    if scaled:
        own = torch.zeros_like(diagonal)
        for patch in patches:
            part = patch.diagonal.to(own).flatten(1).expand(len(own), -1)
            own.index_add_(1, patch.numbers.flatten(), part)
        S = (own / torch.where(diagonal == 0, 1, diagonal)).abs().sqrt()
    times = torch.zeros(count, dtype=diagonal.dtype, device=diagonal.device)
    for patch in patches:
        times += torch.bincount(patch.numbers.flatten(), minlength=count)
    shared_dofs = shared_dofs[times[shared_dofs] > 0]  # not held by whole sides
    interface = Interface(patches, shared_dofs, count) if 0 < len(shared_dofs) <= INTERFACE else None
    for converted in (*patches, *([] if interface is None else [interface])):
        converted.convert(diagonal.dtype)
    if interface is not None:
        return lambda r: S * interface.solve(S * r)
    S = S / times.clamp(min=1)

    def solve(r: Tensor) -> Tensor:
        z, r = torch.zeros_like(r), S * r
        for patch in patches:
            z.index_add_(1, patch.numbers.flatten(), patch.solve(r[:, patch.numbers]).flatten(1))
        return S * z

    return solve
