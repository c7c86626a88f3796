"""From what the user wrote to a discrete form: parameters become tensors, and every term integrals over its domains.

Here alone it is chosen how an integral is evaluated: by a loop over the cells of a uniform grid or of any mesh, where
space, parameters and density allow it, and with values at all points everywhere else.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from fem.forms.cell_integral import CellIntegral
from fem.forms.constraints import Constraint, data_at
from fem.forms.discrete import DiscreteForm
from fem.forms.grid_integral import GridIntegral
from fem.forms.interior_integral import InteriorIntegral
from fem.forms.parameters import (
    Constant,
    Parameter,
    PointValues,
    Resolved,
    may_jump,
    resolved,
    values_at_points,
)
from fem.forms.pointwise import scattered
from fem.forms.term import Term
from fem.forms.traced.facets import Facets, facets_of
from fem.forms.traced.loops import GridCells, shape_of
from fem.forms.traced.mesh_cells import MeshCells
from fem.forms.traced.mesh_integral import FacetIntegral, MeshIntegral
from fem.forms.traced.patch_cells import PatchCells
from fem.forms.traced.patch_integral import PatchIntegral
from fem.kernels.cells.integrand import CellIntegrand
from fem.kernels.grid_integrand import GridIntegrand
from fem.kernels.integrand import Integrand
from fem.kernels.program import UntraceableError
from fem.kernels.tape import check, record
from fem.mesh.geometry import Domain, geometry
from fem.space.facets.pairs import FacetPairs, PairGeometry
from fem.space.facets.two_sides import TwoSides
from fem.space.space import AnySpace, FunctionSpace
from fem.support.transforms import carries

KEPT = 4  # integrands of one term, for parameters of different kinds


def discrete_form(
    space: AnySpace,
    terms: Sequence[Term],
    constraint: Constraint,
    params: Sequence[Parameter],
    time: float | None = None,
) -> DiscreteForm:
    """The sum of some terms as a function of dofs and of explicit tensors, prescribed values being those at a time.

    Raises:
        ValueError, TypeError: a parameter that does not fit the space (its position named).
    """
    integrals: list[Any] = []
    for term in sorted(terms, key=lambda t: t.interior):
        integrals += (integrals_over_cells if term.tag is None else facet_integrals)(space, term, params)
    return DiscreteForm(space, constraint, tuple(integrals), data_at(constraint, time))


def integrals_over_cells(space: AnySpace, term: Term, params: Sequence[Parameter]) -> list[Any]:
    """A term on all cells: by loops over those of a kind, else by values at points, some cells at a time."""
    wholes, domains = space.quadrature.wholes(), space.quadrature.domains()
    traced = [traced_integral(space, term, domain, params) for domain in wholes]
    if len(wholes) == len(domains):
        pairs = zip(traced, domains, strict=True)
        return [found or cell_integral(space, term, domain, params) for found, domain in pairs]
    return traced if None not in traced else [cell_integral(space, term, domain, params) for domain in domains]


def cell_integrals(space: AnySpace, terms: Sequence[Term], params: Sequence[Parameter]) -> list[CellIntegral]:
    """Some terms by values at points wherever they are integrated, for those who look at single cells; detached."""
    return [
        cell_integral(space, t, domain, params).detach() for t in terms for domain in space.quadrature.domains(t.tag)
    ]


def cell_integral(
    space: AnySpace, term: Term, domain: Domain, params: Sequence[Parameter], keep: bool = True
) -> CellIntegral:
    """A term on any domain, by values at its points; `keep` leaves the geometry with the space for the next time."""
    derivatives = max(term.derivatives, 1)
    place = space.quadrature.geometry(domain, derivatives) if keep else geometry(space.mesh, domain, derivatives)
    values = tuple(values_at_points(p, f"parameter {i}", space, domain, place) for i, p in enumerate(params))
    explicit = not keep or space.mesh.version is None  # the latter: the nodes need gradients
    return CellIntegral(space, term, domain, values, place if explicit else None)


def interior_integral(space: AnySpace, term: Term, pairs: FacetPairs, params: Sequence[Parameter]) -> InteriorIntegral:
    """A term on facets with two sides; parameters that may jump there get two values, others one."""
    derivatives = max(term.derivatives, 1)
    place = space.quadrature.geometry(pairs, derivatives)
    assert isinstance(place, PairGeometry)
    double = tuple(may_jump(p) for p in params)
    values = tuple(
        values_at_points(p, f"parameter {i}", space, pairs.sides[side], place.seen_from(side))
        for i, (p, both) in enumerate(zip(params, double, strict=True))
        for side in ((0, 1) if both else (0,))
    )
    moving = place if space.mesh.version is None else None
    return InteriorIntegral(TwoSides(space), term, pairs, values, moving, double)


def facet_integrals(space: AnySpace, term: Term, params: Sequence[Parameter]) -> list[Any]:
    """A term on tagged facets, all groups of them in one loop where that serves them."""
    assert term.tag is not None
    if not term.interior:
        domains, plain = space.quadrature.domains(term.tag), cell_integral
    else:
        domains, plain = space.quadrature.pairs(term.tag), interior_integral
    found = []
    for facets in facets_of(space, term.tag, domains):
        traced = traced_on_facets(space, term, facets, params)
        own: Any = facets.groups
        found += [plain(space, term, group, params) for group in own] if traced is None else [traced]
    return found


def traced_on_facets(space: AnySpace, term: Term, facets: Facets, params: Sequence[Parameter]) -> FacetIntegral | None:
    """A term on facets by the program of its density, if space, parameters and density allow it."""
    double = tuple(term.interior and may_jump(p) for p in params)
    cells = MeshCells.of_facets(space, term, facets, double)
    if cells is None:
        return None
    geometry, values = facets.geometry(space), []
    for i, (parameter, both) in enumerate(zip(params, double, strict=True)):
        for whole in facets.wholes if both else facets.wholes[:1]:
            values.append(resolved(parameter, f"parameter {i}", space, whole, geometry))
    traced = traced_with(cells, term, values)
    if traced is None:
        return None
    moving = geometry if space.mesh.version is None else None
    return FacetIntegral(space, term, facets, *traced, moving, double)


def traced_integral(
    space: AnySpace, term: Term, domain: Domain, params: Sequence[Parameter]
) -> GridIntegral | MeshIntegral | PatchIntegral | None:
    """A term on all cells of a mesh by the program of its density, if space, parameters and density allow it."""
    cells = GridCells.of(space, term) or MeshCells.of(space, term, domain) or PatchCells.on(space, term, domain)
    if cells is None:
        return None
    values = []
    for i, parameter in enumerate(params):
        if isinstance(cells, PatchCells) and callable(parameter):
            values.append(at_positions(parameter, f"parameter {i}", cells.space, domain, cells.positions()))
            continue
        place = space.quadrature.geometry(domain) if callable(parameter) else None
        values.append(resolved(parameter, f"parameter {i}", space, domain, place))
    traced = traced_with(cells, term, values)
    if traced is None or isinstance(traced[1], GridIntegrand):
        return None if traced is None else GridIntegral(cells.space, term, domain, *traced)
    if isinstance(cells, PatchCells):
        points = space.quadrature.patch_geometry(domain).points  # type: ignore[attr-defined]
        return PatchIntegral(cells.space, term, domain, *traced, points if carries(points) else None)
    own = traced[1].place
    return MeshIntegral(
        space, term, own, *traced, space.quadrature.geometry(own) if space.mesh.version is None else None
    )


def traced_with(
    cells: GridCells | MeshCells, term: Term, values: Sequence[Resolved]
) -> tuple[tuple[Resolved, ...], Any] | None:
    """The parameters and the integrand of a term, if its density can be traced.

    Numbers are tensors where the density lets them: one program then serves all of them.
    """
    like = {"dtype": cells.space.dtype, "device": cells.space.device}
    tensors = [Constant(torch.tensor(v, **like), ()) if isinstance(v, float) else v for v in values]
    numbers = [i for i, (v, t) in enumerate(zip(values, tensors, strict=True)) if v is not t]
    for given in (tensors, values) if numbers else (values,):
        integrand = integrand_of(cells, term, given, numbers if given is tensors else [])
        if integrand is not None:
            return tuple(given), integrand
    return None


def at_positions(
    parameter: Parameter, name: str, space: FunctionSpace, domain: Domain, portions: Iterable[Any]
) -> Resolved:
    """A callable at points that come in portions, none of which is kept."""
    found = [resolved(parameter, name, space, domain, place) for place in portions]
    if not all(isinstance(f, PointValues) for f in found):
        return found[0]
    parts: list[Any] = [f.value for f in found if isinstance(f, PointValues)]
    return PointValues(parts[0] if len(parts) == 1 else torch.cat(parts), parts[0].ndim - 2)


def integrand_of(
    cells: GridCells | MeshCells, term: Term, values: Sequence[Resolved], numbers: Sequence[int]
) -> Integrand | None:
    """A term's density on some cells, the same as before if the density and the kinds of parameters are.

    None where it cannot be traced, or does with one of the parameters in `numbers` what needs their values.
    """
    space, dim = cells.space, cells.space.mesh.num_coordinates
    shapes = [*cells.physical(), *[shape_of(v, dim) for v in values]]
    slots, inputs = cells.slots()
    density = lambda *a: term.density(*cells.arranged(a))  # noqa: E731
    start = len(slots)
    sides = cells.sides_of(values)
    given = [g for i, v in enumerate(values) if (g := cells.parameter(v, start + i, sides[i])) is not None]
    if len(given) < len(values):
        return None
    inputs += [i for _, i in given if i is not None]
    try:
        tape = record(density, shapes, space.dtype)
    except UntraceableError:
        return None
    key = tape, repr(shapes), tuple(inputs), bool(numbers), cells.key
    before = term.integrands.get(key)
    if before is not None and before[0] is space:
        return before[1]
    made = cells.integrand(tape, [*slots, *[a for a, _ in given]], inputs, values)
    try:
        check(density, shapes, space.dtype, tape)
        term.check_pointwise(key, lambda: at_some_points(cells, term, values, shapes))
        where = [i for i, (argument, _) in enumerate(made.entries) if argument - start in numbers]
        integrand = made if all(p.is_arithmetic(where) for p in made.value_and_derivatives()) else None
    except UntraceableError:
        integrand = None
    if isinstance(integrand, CellIntegrand):
        integrand = integrand.with_cheapest_rule()
    while len(term.integrands) >= KEPT:
        term.integrands.pop(next(iter(list(term.integrands)), None), None)
    term.integrands[key] = space, integrand
    return integrand


def at_some_points(
    cells: GridCells | MeshCells, term: Term, values: Sequence[Resolved], arguments: Sequence[Any]
) -> tuple[list[Any], int]:
    """A density's arguments at a few points of a mesh, and how many after x belong to u; fields get some values."""
    space, each = cells.space, torch.arange(12, device=cells.space.device)
    slots = len(arguments) - 1 - len(values)
    chosen, box = each * space.mesh.num_nodes // len(each), space.mesh.box
    x = (space.mesh.nodes.detach()[chosen] if box is None else box.refined(1, chosen)).reshape(4, 3, -1)
    found = [PointValues(x, 1)]
    facet = cells.facet_values
    given_values = [*[None] * (slots - len(facet)), *facet, *values]
    for argument, value in zip(arguments[1:], given_values, strict=True):
        if isinstance(value, float):
            found.append(PointValues(value))
        elif isinstance(value, Constant):
            found.append(
                PointValues(
                    value.value.detach()[(..., None, None, *[slice(None)] * len(value.shape))], len(value.shape)
                )
            )
        elif isinstance(value, PointValues):
            given = value.value.detach().movedim((-2 - value.rank, -1 - value.rank), (0, 1))
            given = given[each[:4, None] % len(given), each[:3] % given.shape[1]]
            given = given.movedim((0, 1), (-2 - value.rank, -1 - value.rank))
            found.append(PointValues(given, value.rank))
        else:
            found.append(PointValues(scattered(x.new_empty(4, 3, *argument), 0.5, len(found)).detach(), len(argument)))
    return cells.arranged(found), (term.derivatives + 1) * (2 if term.linear_in_test else 1)
