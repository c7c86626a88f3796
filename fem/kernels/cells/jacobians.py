"""Inverse Jacobians and measures as C code, from what `CellSource` interpolates: vx_c_s is ∂x_c/∂ξ_r with s = 1 + r."""

from collections.abc import Sequence


def inverse_jacobians(d: int, names: Sequence[str]) -> list[str]:
    """Lines that fill the arrays `names`, the entries of ∂ξ/∂x row by row and det ∂x/∂ξ.

    By cofactors, in the same way as `fem.mesh.jacobian`.
    """
    reads = [f"const V j{c}{r} = AT(vx_{c}_{1 + r}[0][j]);" for c in range(d) for r in range(d)]
    if d == 1:
        cofactors = ["(V){0} + 1"]
    elif d == 2:
        cofactors = ["j11", "-j01", "-j10", "j00"]
    else:
        # Row r of the adjugate is the cross product of the next two columns of the Jacobian.
        after = lambda k: ((k + 1) % 3, (k + 2) % 3)  # noqa: E731
        cofactors = [
            f"j{a}{s} * j{b}{t} - j{b}{s} * j{a}{t}" for s, t in map(after, range(3)) for a, b in map(after, range(3))
        ]
    lines = [f"const V c{k} = {text};" for k, text in enumerate(cofactors)]
    det = " + ".join(f"j{c}0 * c{c}" for c in range(d))
    ratios = [f"AT({name}[0][j]) = c{k} * ratio;" for k, name in enumerate(names[:-1])]
    return [
        *("for (int64_t j = 0; j < W; j += L) {", *reads, *lines),
        *(f"const V det_j = {det}, ratio = 1 / det_j;", *ratios, f"AT({names[-1]}[0][j]) = det_j;", "}"),
    ]
