"""What resists change: mass and damping as functionals of a rate, R(v) = ∫ ½ ρ |v|² dx or any other.

Methods in time replace the rate at the end of a step by c (u − w), with a number c and a function w of what is known
already. Then R′(c (u − w)) is the derivative in u of

    (1/c) R(c (u − w)),

which for masses is (c/2) ∫ ρ |u − w|² dx, the squared distance from w: it joins the energy of the step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fem.forms.constraints import Free
from fem.forms.discrete import DiscreteForm
from fem.forms.energy import Energy, Functional, WeakForm
from fem.forms.parameters import Parameter
from fem.space.field import gradient
from fem.space.space import FunctionSpace
from fem.support.checks import check_params, is_integer, shown, signature

WANTED = (
    "a number, a field `V.function(values)`, one value per cell `V.per_cell(values)`, a callable of x, a density of "
    "(x, u) or (x, u, grad_u), or a functional of the rate; on a mixed space {field: one of the former}"
)
Mass = Any  # see `WANTED`


@dataclass(frozen=True, eq=False)
class Rates:
    """R of rates c (u − w), for the space and the kind of some functional.

    Attributes:
        functional: its integrands take the parameters `params`, w (field by field, and gradients too where `order` is
            1), c and 1/c.
        fields: those of the space that it sees.
        name: of the argument that it comes from.
    """

    functional: Functional
    params: tuple[Parameter, ...]
    fields: tuple[int, ...]
    order: int
    name: str

    def form(self, w: Tensor, c: float) -> DiscreteForm:
        """(1/c) R(c (u − w)) as a function of u, without any constraint."""
        space = self.functional.space
        parts = space.split(w)
        functions = [space.fields[i].function(parts[i]) for i in self.fields]
        slopes = [gradient(f) for f in functions] if self.order else []
        try:
            return self.functional.discrete_form((*self.params, *functions, *slopes, c, 1 / c))
        except (ValueError, TypeError) as error:
            raise type(error)(f"`evolve({self.name}=...)`: {error}") from error


def rates_of(call: str, name: str, problem: Functional, given: Mass, params: Sequence[Parameter] = ()) -> Rates:
    """What a user gave as mass or damping of a problem.

    Raises:
        TypeError, ValueError: what is none, or on a mixed space does not say which field it belongs to.
    """
    space, single = problem.space, isinstance(problem.space, FunctionSpace)
    params = check_params(call, params, f"{name}_params")
    if isinstance(given, Functional):
        return shifted(call, name, problem, given, params)
    if callable(given) and (takes := signature(given)) is not None and takes.least >= 2:
        return shifted(call, name, problem, of_density(problem, given, takes.least - len(params)), params)
    if given is None or isinstance(given, bool | str):
        raise TypeError(f"`{call}({name}=...)` must be {WANTED}; got {shown(given)}.")
    if params:
        raise ValueError(f"`{call}({name}_params=...)` are those of a density or functional; got {shown(given)}.")
    if not isinstance(given, Mapping):
        if not single:
            raise ValueError(
                f"`{call}({name}=...)` on a mixed space says which fields it belongs to, `{name}={{0: 1.0}}`, or is a "
                f"density or a functional; got {shown(given)}."
            )
        given = {0: given}
    count = len(space.fields)
    if not given or not all(is_integer(i, 0) and i < count for i in given):
        raise ValueError(f"`{call}({name}={{field: ...}})` takes fields of [0, {count}); got {list(given)}.")
    fields = tuple(int(i) for i in given)
    ranks = [len(space.fields[i].value_shape) for i in fields]
    density = distance(single, fields, ranks, isinstance(problem, WeakForm))
    kind = WeakForm if isinstance(problem, WeakForm) else Energy
    return Rates(kind(space, density, derivatives=0), tuple(given.values()), fields, 0, name)


def distance(single: bool, fields: Sequence[int], ranks: Sequence[int], weak: bool) -> Callable[..., Tensor]:
    """(c/2) Σ_i ρ_i |u_i − w_i|², or the factor of v in its derivative; the parameters are ρ, w, c and 1/c."""
    count = len(fields)

    def density(x: Tensor, u: Any, *rest: Any) -> Tensor:
        v, given = (rest[0], rest[1:]) if weak else (None, rest)
        c, total = given[2 * count], 0.0
        for k, (i, rank) in enumerate(zip(fields, ranks, strict=True)):
            rho, away = given[k], (u if single else u[i]) - given[count + k]
            product = away * (v if single else v[i]) if weak else 0.5 * away.square()  # pyright: ignore[reportOptionalSubscript]
            total = total + rho * (product.sum(-1) if rank else product)
        return c * total  # pyright: ignore[reportReturnType]

    return density


def of_density(problem: Functional, density: Callable[..., Any], arguments: int) -> Functional:
    """A functional of a density that takes so many arguments beside parameters: x, u and perhaps ∇u (v, ∇v)."""
    kind, each = (WeakForm, 2) if isinstance(problem, WeakForm) else (Energy, 1)
    return kind(problem.space, density, derivatives=0 if arguments <= 1 + each else 1)


def shifted(call: str, name: str, problem: Functional, given: Functional, params: tuple[Parameter, ...]) -> Rates:
    """A functional of rates, of any density, as one of c (u − w)."""
    kind = WeakForm if isinstance(problem, WeakForm) else Energy
    if not isinstance(given, kind) or given.space is not problem.space:
        raise TypeError(
            f"`{call}({name}=...)` must be of the same kind and on the same space object as what evolves, here "
            f"`{kind.__name__}` over {problem.space}; got {shown(given)}."
        )
    if not isinstance(given.constraint, Free) and given.constraint is not problem.constraint:
        raise ValueError(f"`{call}({name}=...)` has a constraint of its own; give it none.")
    if any(term.interior or term.derivatives > 1 for term in given.terms):
        raise ValueError(f"`{call}({name}=...)` takes no interior terms and no second derivatives.")
    for term in given.terms:
        term.check_arguments(len(params))
    order, fields = max(term.derivatives for term in given.terms), tuple(range(len(problem.space.fields)))
    moved = object.__new__(kind)
    own = len(params), len(fields), not isinstance(problem.space, FunctionSpace), kind is WeakForm
    terms = tuple(
        replace(t, density=of_shifted(t.density, t.derivatives, order, *own), integrands={}, evaluations={})
        for t in given.terms
    )
    moved.__dict__.update(given.__dict__ | {"terms": terms, "reuse": None, "constraint": Free(problem.space)})
    return Rates(moved, params, fields, order, name)


def of_shifted(
    density: Callable[..., Tensor], own: int, order: int, params: int, fields: int, mixed: bool, weak: bool
) -> Callable[..., Tensor]:
    """(1/c) ψ(x, c (u − w), c (∇u − ∇w), *params); weak forms are linear in v already."""

    def moved(x: Tensor, *rest: Any) -> Tensor:
        given = rest[len(rest) - params - (1 + order) * fields - 2 :]
        before = rest[: len(rest) - len(given)]
        c, inverse, known = given[-2], given[-1], given[params:-2]
        slots = []
        for k in range(own + 1):
            w = known[k * fields : (k + 1) * fields]
            away = [c * (a - b) for a, b in zip(before[k] if mixed else [before[k]], w, strict=True)]
            slots.append(tuple(away) if mixed else away[0])
        value = density(x, *slots, *before[own + 1 :], *given[:params])
        return value if weak else inverse * value

    return moved
