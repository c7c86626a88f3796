"""Isogeometric analysis: function spaces of splines on curves, surfaces and volumes, whose geometry is exact.

A function is u(x) = Σ_a u_a N_a(S⁻¹(x)) with the patch S and B-splines N_a of any degree on a refinement of its knots
(h-, p- and k-refinement are the arguments `spans`, `degree` and the smoothness that follows), or with the patch's own
rational functions. Energies, constraints and solvers take such a space as any other.

Source: T. Hughes, J. Cottrell, Y. Bazilevs, Isogeometric analysis, CMAME 194, 2005.
"""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor

from fem.reference.spline_element import BSpline
from fem.support.checks import check_flags
from nurbs.errors import GeometryError
from nurbs.geometry.directions import continued, per_direction
from nurbs.geometry.patch import Patch, check_patch
from nurbs.isogeometric.patch_mesh import PatchMesh, Seam, find_seams, name_of
from nurbs.isogeometric.spline_space import SplineSpace
from nurbs.modelling.refinement import breakpoints, elevate_degree, insert_knots


def isogeometric_space(
    patches: Patch | Sequence[Patch],
    degree: int | Sequence[int],
    spans: int | Sequence[int] = 1,
    components: int | None = None,
    *,
    rational: bool = False,
    quadrature_degree: int | None = None,
    glue: bool = True,
) -> SplineSpace:
    """Splines on a `Curve`, `Surface` or `Volume`, or on several that are glued continuously along common sides.

    Args:
        patches: without batch axes; their geometry stays as it is, however coarse.
        degree: of the basis, per direction or for all, 1 or more.
        spans: at least so many knot spans per direction of each patch, or for all; every span of the patch is cut into
            as many equal ones. Across the patch's own knots functions are as smooth as the patch allows, across new
            ones degree − 1 times.
        components: None for scalars, c for vectors.
        rational: take N_a w_a / Σ_c w_c N_c with the patch's weight function, in which the patch itself lies
            (isoparametric); its degree must not exceed `degree` then. Plain B-splines do without and converge as fast.
        quadrature_degree: 2 degree + 1 by default (degree + 1 Gauss points per direction and span), with the degree of
            the patches where theirs is higher. 2 degree − 1 keeps all orders; so does 2 degree − 3 for splines of
            degree 4 and more that are as smooth as they can be, which halves the time of large problems in space.
        glue: whether sides that coincide are one; also those of one patch, which closes a ring. Periodic directions
            close by themselves, smoothly.

    Raises:
        GeometryError: a folded patch (patch and parameters named), sides that share corners but do not match.
        ValueError: batches, patches of different kinds, degree 0, a quadrature too coarse for the degree.
    """
    patches = tuple(patches) if isinstance(patches, Sequence) else (patches,)
    for patch in patches:
        check_patch("isogeometric_space(patches)", patch)
    check_flags("isogeometric_space", rational=rational, glue=glue)
    kinds = {(type(p), p.dim, p.dtype, p.device) for p in patches}
    if len(kinds) != 1 or any(p.batch for p in patches):
        raise ValueError(
            "`isogeometric_space` takes patches of one kind, dimension, dtype and device, without batch axes; got "
            f"{', '.join(map(repr, patches)) or 'none'}."
        )
    r, kind = patches[0].directions, type(patches[0]).__name__
    degrees = per_direction("degree", degree, r, kind, int)
    counts = per_direction("spans", spans, r, kind, int)
    if min(degrees) < 1 or min(counts) < 1:
        raise ValueError(
            f"`isogeometric_space` needs degree >= 1 and spans >= 1 in every direction; got {degrees} and {counts}. "
            "Functions of degree 0 jump, and have no gradient."
        )
    elements = [analysis_basis(p, degrees, counts, rational) for p in patches]
    coarsest = max(coarsest_quadrature(e) for e in elements)
    if quadrature_degree is not None and quadrature_degree < coarsest:
        raise ValueError(
            f"`quadrature_degree={quadrature_degree}` is too coarse for degree {max(degrees)} on these spans: matrices "
            f"would be singular, or orders be lost. Use {coarsest} or more; {2 * max(degrees) + 1} is the default."
        )
    seams = find_seams(patches) if glue else []
    for seam in seams:
        check_seam(patches, elements, seam)
    mesh = PatchMesh.of(patches, elements, seams)
    mesh.check(quadrature_degree or mesh.default_quadrature)
    return SplineSpace(mesh, components, quadrature_degree)


def analysis_basis(patch: Patch, degrees: Sequence[int], counts: Sequence[int], rational: bool) -> BSpline:
    """B-splines of these degrees on the patch's knots, each of whose spans is cut into equal parts."""
    patch, knots = patch.detach(), []
    for axis, (p, count) in enumerate(zip(degrees, counts, strict=True)):
        found = breakpoints(patch, axis)
        values, parts = found.values, ceil(count / (len(found.values) - 1))
        smooth = patch.degree[axis] - found.times
        times = (p - smooth).clamp(1, p)
        share = torch.arange(1, parts, dtype=patch.dtype, device=patch.device) / parts
        new = torch.lerp(values[:-1, None], values[1:, None], share).flatten()
        if patch.periodic[axis]:
            times[-1] = 1
            line = torch.cat([values.repeat_interleave(times), new]).sort().values
            knots.append(continued(line, p))
        else:
            times[0] = times[-1] = p + 1
            knots.append(torch.cat([values.repeat_interleave(times), new]).sort().values)
    if not rational or patch.weights is None:
        return BSpline(knots, degrees)
    lower = [f"{q} of the patch" for p, q in zip(degrees, patch.degree, strict=True) if p < q]
    if lower or any(patch.periodic):
        raise ValueError(
            f"`rational=True` needs a degree of at least {patch.degree}, that of the patch, and no periodic direction; "
            f"got {tuple(degrees)} and {patch}. Plain B-splines (`rational=False`) take any."
        )
    fine = elevate_degree(patch, [p - q for p, q in zip(degrees, patch.degree, strict=True)])
    missing = []
    for axis, t in enumerate(knots):
        here = fine.knots[axis]
        values, times = t.unique(return_counts=True)
        there = torch.stack([(here - v).abs().lt(1e-12).sum() for v in values])
        missing.append(values.repeat_interleave((times - there).clamp(min=0)))
    fine = insert_knots(fine, *missing)
    assert fine.weights is not None
    return BSpline(knots, degrees, fine.weights.permute(*range(fine.weights.ndim)[::-1]).flatten())


def coarsest_quadrature(element: BSpline) -> int:
    """The lowest degree of quadrature with which energies of ∇u keep their order."""
    p = max(element.degrees)
    smooth = min(element.degrees) >= 4 and element.continuity >= min(element.degrees) - 1
    enough = all(
        (q - 1) * m >= n for q, m, n in zip(element.degrees, element.grid_shape, element.dof_shape, strict=True)
    )
    return 2 * p - 3 if smooth and enough else 2 * p - 1


def check_seam(patches: Sequence[Patch], elements: Sequence[BSpline], seam: Seam) -> None:
    """Raise where the splines on the two sides of a seam differ.

    Raises:
        GeometryError: other degrees or knots (both sides named).
    """
    one, two = elements[seam.one.patch], elements[seam.two.patch]
    other = [k for k in range(len(two.knots)) if k != seam.two.axis]
    for j, k in enumerate(k for k in range(len(one.knots)) if k != seam.one.axis):
        m = other[seam.axes[j]]
        t, s = (normalized(e.knots[a]) for e, a in ((one, k), (two, m)))
        s = 1 - s.flip(0) if j in seam.flips else s
        if one.degrees[k] != two.degrees[m] or len(t) != len(s) or bool((t - s).abs().max() > 1e-9):
            raise GeometryError(
                f"{name_of(patches, seam.one)} and {name_of(patches, seam.two)} coincide, but their splines do not: "
                f"{one.degrees[k]} and {two.degrees[m]} are the degrees, {len(t)} and {len(s)} the numbers of knots. "
                "Give patches that meet equal `spans` and knots there."
            )


def normalized(knots: Tensor) -> Tensor:
    return (knots - knots[0]) / (knots[-1] - knots[0])
