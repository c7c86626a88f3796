"""Constraints on the dofs of a space: prescribed boundary values, and a vanishing mean of what they leave undetermined.

A constraint is an affine map u ↦ A u + g: `apply` is that map, `project` the transpose Aᵀ of its linear part, and
`data` the tensor that g (or A) is made of, so that solvers can differentiate with respect to it.
"""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fem.forms.parameters import at_time, check_like, of_time
from fem.space.field import Function
from fem.space.space import AnySpace, FunctionSpace, MixedSpace, Space
from fem.space.tagged_dofs import check_index, insert_values
from fem.support.arithmetic import common_batch
from fem.support.checks import check_kind, is_integer, shown
from fem.support.modes import outside_modes
from fem.support.transforms import mapped


@runtime_checkable
class Constraint(Protocol):
    """What an energy and its solvers ask of a constraint."""

    @property
    def space(self) -> AnySpace: ...

    @property
    def fixed(self) -> Tensor | None:
        """True at prescribed dofs, of the space's shape."""
        ...

    def data(self) -> Tensor | None: ...

    def insert(self, u: Tensor, data: Tensor | None) -> Tensor: ...

    def project(self, residual: Tensor, data: Tensor | None) -> Tensor: ...


class Free:
    """No constraint at all."""

    fixed = None

    def __init__(self, space: AnySpace):
        self.space = space

    def data(self) -> None:
        return None

    def insert(self, u: Tensor, data: Tensor | None) -> Tensor:
        return u

    def linear(self, v: Tensor, data: Tensor | None) -> Tensor:
        return v

    def project(self, residual: Tensor, data: Tensor | None) -> Tensor:
        return residual


class Dirichlet:
    """Prescribed values on tagged facets, at tagged nodes and at points, inserted exactly and differentiably.

    Args:
        space: the space whose dofs are prescribed.
        values: {tag: value} or {(tag, component): value}; on a mixed space (tag, field) or (tag, field, component).
            Later entries win where they meet. A tag names facets, nodes (`mesh.node_tags`), or both: then it is all of
            them; or cells, or it is `at_points([[0.0, 0.0]])`. A value is a number, a callable of x "k d", a field on
            the space, or a tensor: a number (), one value per component (c,), one per dof of the tag as
            `space.dofs(tag)` lists them "*b k (c)", or one per dof of the whole space "*b n (c)"; in `evolve` also a
            callable of (x, t), which `at(t)` turns into one of x for other solvers. Of `RaviartThomas`
            it is the flux outwards, a number or a callable, or a vector field, a callable of x "k d" that gives "k d",
            whose flux is taken; of `Nedelec` 0 or a vector field, whose tangential part is.

    Raises:
        ValueError: an unknown tag, component or field, values of the wrong shape or not finite.
        TypeError: values of another dtype than the space's.
    """

    def __init__(self, space: AnySpace, values: Mapping[Any, Any]):
        check_kind("Dirichlet", "space", space, Space, "a `FunctionSpace` or `MixedSpace`")
        check_kind("Dirichlet", "values", values, Mapping, 'a mapping {tag: value}, such as {"boundary": 0.0}')
        self.space, self.values = space, dict(values)
        self._prescribe(
            [
                (i, component, tag, space.fields[i].dofs(tag), value)
                for key, value in self.values.items()
                for i, component, tag in self._targets(key)
            ]
        )

    def _prescribe(self, entries: list[tuple[int, int | None, Any, Tensor, Any]]) -> None:
        """Hold these dofs: (field, component, tag, nodes, value) each."""
        space, self._entries = self.space, entries
        self._constant: Tensor | None = None  # prescribed values that can never change
        fixed = [torch.zeros(f.shape, dtype=torch.bool, device=space.device) for f in space.fields]
        for i, component, _, dofs, _ in entries:
            fixed[i][(dofs, component) if component is not None else dofs] = True
        self._fixed = space.join(fixed) if isinstance(space, MixedSpace) else fixed[0]
        # Few dofs of many are prescribed: copying them takes a fraction of the time of a choice for each dof.
        self._places = self._fixed.flatten().nonzero()[:, 0]
        self.time_dependent = any(of_time(value) for *_, value in entries)
        if self.time_dependent:
            return
        with torch.no_grad():
            data = self.data()
        moments = any(field.moments is not None for field in space.fields)  # of a number: they change with the nodes
        if all(isinstance(value, int | float) and not (moments and value) for *_, value in entries):
            self._constant = data if bool(data.any()) else data.new_zeros(()).expand(data.shape)

    @property
    def fixed(self) -> Bool[Tensor, "..."]:
        """True at prescribed dofs, of the space's shape."""
        return self._fixed

    mask = fixed  # another name

    @outside_modes
    def apply(self, u: Tensor) -> Tensor:
        """`u` with the prescribed values written into it: differentiable in u, the values and the mesh nodes."""
        return self.insert(self.space.check(u), self.data())

    def at(self, time: float) -> "Dirichlet":
        """The same with its values at one time."""
        return Dirichlet(self.space, {key: at_time(value, time) for key, value in self.values.items()})

    def data(self, time: float | None = None) -> Tensor:
        """The prescribed values "*b *shape" (at a time, if they change with it), zero elsewhere."""
        if self._constant is not None:
            return self._constant
        fields = [torch.zeros(f.shape, dtype=f.dtype, device=f.device) for f in self.space.fields]
        for i, component, tag, dofs, value in self._entries:
            space = self.space.fields[i]
            given = prescribed(space, component, tag, dofs, at_time(value, time))
            fields[i] = insert_values(space, fields[i], component, dofs, given)
        if isinstance(self.space, FunctionSpace):
            return fields[0]
        batch = common_batch(
            *[f.shape[: f.ndim - len(s.shape)] for f, s in zip(fields, self.space.fields, strict=True)]
        )
        return self.space.join([f.expand(*batch, *s.shape) for f, s in zip(fields, self.space.fields, strict=True)])

    def insert(self, u: Tensor, data: Tensor | None) -> Tensor:
        assert data is not None
        shape, dim = self.space.shape, len(self.space.shape)
        batch = common_batch(u.shape[: u.ndim - dim], data.shape[: data.ndim - dim])
        given = data.flatten(-dim).index_select(-1, self._places).expand(*batch, -1)
        return u.expand(*batch, *shape).flatten(-dim).index_copy(-1, self._places, given).unflatten(-1, shape)

    def project(self, residual: Tensor, data: Tensor | None) -> Tensor:
        return residual.flatten(-len(self.space.shape)).index_fill(-1, self._places, 0).unflatten(-1, self.space.shape)

    def clear(self, v: Tensor) -> None:
        """`project` in place."""
        whole, lead = v.is_contiguous(), v.shape[: v.ndim - len(self.space.shape)]
        v.view(*lead, -1).index_fill_(-1, self._places, 0) if whole else v.masked_fill_(self._fixed, 0)

    def holds(self, u: Tensor, data: Tensor) -> bool:
        """Whether u has the prescribed values."""
        values, given = (t.flatten(-len(self.space.shape)).index_select(-1, self._places) for t in (u, data))
        return bool((values == given).all())

    linear = project  # the linear part of `insert`

    def __and__(self, other: Any) -> Any:
        """Both: prescribed values, those of the other too, a vanishing mean of another field, or ties.

        Raises:
            ValueError: different values at one dof, which is named; constraints on different spaces.
        """
        if not isinstance(other, Dirichlet):
            return other & self if isinstance(other, Constraint) else NotImplemented  # type: ignore[operator]
        if other.space is not self.space:
            raise ValueError("constraints joined by `&` must be on one and the same space.")
        both, found = object.__new__(Dirichlet), (self._fixed & other._fixed).flatten()
        if (self.time_dependent or other.time_dependent) and bool(found.any()):
            raise ValueError(
                f"dof {int(found.nonzero()[0])} is prescribed twice, by functions of time; within one `Dirichlet` "
                "later entries win where they meet."
            )
        with torch.no_grad():
            mine, theirs = (c.data(0.0).flatten(-len(self.space.shape))[..., found] for c in (self, other))
            wrong = (mine - theirs).abs() > 1e-8 * (1 + mine.abs())
            if not mapped(wrong) and bool(wrong.any()):
                k = tuple(torch.nonzero(wrong)[0].tolist())
                a, b = (float(t.expand(wrong.shape)[k]) for t in (mine, theirs))
                raise ValueError(
                    f"dof {int(torch.nonzero(found)[k[-1]])} is prescribed twice, as {a} and as {b}; within one "
                    "`Dirichlet` later entries win where they meet."
                )
        both.space, both.values = self.space, self.values | other.values
        both._prescribe(self._entries + other._entries)
        return both

    def __repr__(self) -> str:
        entries = ", ".join(f"{key!r}: {shown(value)}" for key, value in list(self.values.items())[:4]) or "no values"
        more = ", …" if len(self.values) > 4 else ""
        return f"Dirichlet({entries}{more}; {int(self._fixed.sum())} of {self._fixed.numel()} dofs)"

    def _targets(self, key: Any) -> list[tuple[int, int | None, Any]]:
        """(field, component, tag) of every field that an entry's key means."""
        tag, *rest = key if isinstance(key, tuple) and key else (key,)
        fields = range(len(self.space.fields))
        if isinstance(self.space, MixedSpace) and rest:
            fields = [check_index(rest.pop(0), len(self.space.fields), "field", key)]
        component = None
        if rest:
            components = self.space.fields[fields[0]].components
            if components is None:
                moments = self.space.fields[fields[0]].moments is not None
                has = "its dofs are moments, of all components at once" if moments else "the space is scalar"
                raise ValueError(f"`Dirichlet` key {key!r} names a component, but {has}.")
            component = check_index(rest.pop(0), components, "component", key)
        if rest:
            raise ValueError(f"`Dirichlet` key {key!r} has too many parts; give a tag, or (tag, component).")
        return [(i, component, tag) for i in fields]


class MeanZero:
    """∫ u = 0, per component: what makes a pure Neumann problem well posed. `apply` subtracts the mean.

    On a mixed space it holds one field, the pressure of an enclosed flow: `Dirichlet(W, walls) & MeanZero(W, field=1)`.
    The residual is balanced accordingly, so loads whose total does not vanish are met in the least-squares sense.

    Args:
        field: which field of a mixed space, counted from 0.
        dirichlet: values prescribed on other fields, or ties; `dirichlet & MeanZero(space, field)` is the same. `data`
            then holds them at their dofs, and the weights of the mean at those of the field.

    Raises:
        ValueError: different spaces, or values prescribed on the field whose mean is to vanish.
    """

    def __init__(self, space: AnySpace, field: int | None = None, dirichlet: Any = None):
        if not isinstance(space, FunctionSpace if field is None else Space):
            raise TypeError(
                f"`MeanZero` takes a single function space; got {shown(space)}. One field of a mixed space is "
                "`MeanZero(W, field=1)`."
            )
        if field is not None and not (is_integer(field, 0) and field < len(space.fields)):
            raise ValueError(f"`MeanZero(field=...)` must be an integer in [0, {len(space.fields)}); got {field!r}.")
        self.space, self.field = space, int(field or 0)
        own = space.fields[self.field]
        if own.moments is not None:
            raise ValueError(
                f"`MeanZero` holds scalars and vectors of components; a field of {own.family} has neither."
            )
        self.dim = -1 if own.components is None else -2
        self.dirichlet = dirichlet
        if dirichlet is None:
            return
        check_kind("MeanZero", "dirichlet", dirichlet, Constraint, "`Dirichlet(W, {...})`, ties or None")
        if dirichlet.space is not space:
            raise ValueError("`Dirichlet(...) & MeanZero(...)` must be on one and the same space.")
        if not isinstance(dirichlet, Dirichlet):
            self._check_ties(dirichlet)
        values = getattr(dirichlet, "held", dirichlet)
        if values.fixed is not None and bool(space.split(values.fixed)[self.field].any()):
            raise ValueError(
                f"`Dirichlet` prescribes values of field {self.field}, whose mean `MeanZero` is to make vanish: one of "
                "the two can hold it. On a mixed space `Dirichlet(W, {(tag, 0): ...})` prescribes field 0 alone."
            )

    def _check_ties(self, held: Any) -> None:
        """Raise where ties do not let the field be shifted by a constant."""
        field = [torch.zeros(f.shape, dtype=f.dtype, device=f.device) for f in self.space.fields]
        field[self.field] += 1
        ones = self.space.join(field)
        shifted = self.space.split(held.insert(ones, data_at(held, 0.0)))[self.field]
        if not torch.allclose(shifted, torch.ones_like(shifted)):
            raise ValueError(
                f"the ties do not let field {self.field} be shifted by a constant, as `MeanZero` does: their "
                "coefficients must add up to 1 and their offsets vanish there."
            )

    @property
    def fixed(self) -> Bool[Tensor, "..."] | None:
        """True at prescribed dofs, of the space's shape."""
        return None if self.dirichlet is None else self.dirichlet.fixed

    @property
    def time_dependent(self) -> bool:
        return getattr(self.dirichlet, "time_dependent", False)

    def __repr__(self) -> str:
        components = self.space.fields[self.field].components
        which = [f"field {self.field}"] if len(self.space.fields) > 1 else []
        own = f"MeanZero({', '.join(which + ([] if components is None else [f'{components} components']))})"
        return own if self.dirichlet is None else f"{self.dirichlet} & {own}"

    def data(self, time: float | None = None) -> Tensor:
        """m_a = ∫ φ_a "n", differentiable in the mesh nodes; on a mixed space "N", zero at the other fields' dofs."""
        field, parts = self.space.fields[self.field], []
        points = field.quadrature
        for domain in points.domains():
            geometry = points.geometry(domain)
            weights = geometry.weights.expand(geometry.points.shape[:2])
            parts.append(points.from_points(weights[:, None, :, None], domain, 0)[:, 0])
        weights = torch.stack(parts).sum(0)
        if isinstance(self.space, FunctionSpace):
            return weights
        fields = [torch.zeros(f.shape, dtype=f.dtype, device=f.device) for f in self.space.fields]
        fields[self.field] = weights if self.dim == -1 else weights[:, None].expand(field.shape)
        found, held = self.space.join(fields), None if self.dirichlet is None else data_at(self.dirichlet, time)
        return found if held is None else found + held

    def weights(self, data: Tensor) -> Float[Tensor, "..."]:
        """m_a of the field, shaped to go with its dofs."""
        if not isinstance(self.space, FunctionSpace):
            return self.space.split(data)[self.field]
        return data if self.dim == -1 else data[:, None]

    @outside_modes
    def apply(self, u: Tensor) -> Tensor:
        """`u` minus its mean, and with what else is prescribed."""
        return self.insert(self.space.check(u), self.data())

    def insert(self, u: Tensor, data: Tensor | None) -> Tensor:
        assert data is not None
        return self.without_mean(u if self.dirichlet is None else self.dirichlet.insert(u, data), data)

    def without_mean(self, u: Tensor, data: Tensor) -> Tensor:
        m = self.weights(data)
        return self._changed(u, lambda v: v - (v * m).sum(self.dim, keepdim=True) / m.sum(self.dim, keepdim=True))

    def project(self, residual: Tensor, data: Tensor | None) -> Tensor:
        assert data is not None
        m = self.weights(data)
        share = m / m.sum(self.dim, keepdim=True)
        residual = self._changed(residual, lambda r: r - r.sum(self.dim, keepdim=True) * share)
        return residual if self.dirichlet is None else self.dirichlet.project(residual, data)

    def linear(self, v: Tensor, data: Tensor | None) -> Tensor:
        """The linear part of `insert`."""
        assert data is not None
        return self.without_mean(v if self.dirichlet is None else self.dirichlet.linear(v, data), data)

    def _changed(self, u: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """`u` with its field changed."""
        fields = list(self.space.split(u))
        fields[self.field] = change(fields[self.field])
        batch = common_batch(
            *[f.shape[: f.ndim - len(s.shape)] for f, s in zip(fields, self.space.fields, strict=True)]
        )
        return self.space.join([f.expand(*batch, *s.shape) for f, s in zip(fields, self.space.fields, strict=True)])

    def __and__(self, other: Any) -> "MeanZero":
        if self.dirichlet is None:
            return MeanZero(self.space, self.field, other) if isinstance(other, Constraint) else NotImplemented
        both = self.dirichlet & other
        return MeanZero(self.space, self.field, both) if isinstance(both, Constraint) else NotImplemented

    __rand__ = __and__


def data_at(constraint: Constraint, time: float | None) -> Tensor | None:
    """`constraint.data()`, at a time where it changes with it."""
    changing: Any = constraint
    return changing.data(time) if getattr(constraint, "time_dependent", False) else constraint.data()


def prescribed(space: FunctionSpace, component: int | None, tag: Any, dofs: Tensor, value: Any) -> Tensor:
    """One entry's values, "*b k" for a scalar or a single component, else "*b k c"."""
    name = f"the Dirichlet value on {tag!r}"
    rank = int(space.components is not None and component is None)
    if isinstance(value, Function):
        own = space.shape if component is None else space.shape[:1]
        if value.space.mesh.topology is not space.mesh.topology or value.space.shape != own:
            raise ValueError(
                f"{name} is a field on another space, {value.space}; "
                "`V.interpolate(lambda x: W.evaluate(w, x))` carries it over."
            )
        value = value.values
    if space.moments is not None and not (isinstance(value, Tensor) and value.ndim):
        value = space.moments.trace(tag, dofs, value, name)
    if callable(value) and not isinstance(value, Tensor):
        value = space.trace(tag, dofs, value)  # pyright: ignore[reportArgumentType]
    if isinstance(value, Real) and not isinstance(value, bool):
        value = torch.tensor(float(value), dtype=space.dtype, device=space.device)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a number, tensor, field or callable; got {shown(value)}.")
    check_like(space, value, name)
    inner = (space.components or 1,) if rank else ()
    targets = (len(dofs), *inner)
    if value.ndim == 0 or (rank and value.shape == inner):
        value = value.expand(targets)
    elif tuple(value.shape[value.ndim - 1 - rank :]) == (space.num_nodes, *inner) and space.num_nodes != len(dofs):
        value = value.index_select(value.ndim - 1 - rank, dofs)
    elif tuple(value.shape[max(value.ndim - 1 - rank, 0) :]) != targets:
        raise ValueError(
            f"{name} must be a number or have the trailing shape {targets} (dofs of the tag) or "
            f"{(space.num_nodes, *inner)} (all dofs); got {tuple(value.shape)}."
        )
    if not mapped(value) and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} is not finite: got {float(value[~torch.isfinite(value)][0])}.")
    return value
