"""Tapes: whatever changes what a density gives is seen at the next call; numbers that leave tensors are refused."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# What objects have is only known as the tests run.

import contextvars
import dataclasses
import functools
import importlib
import operator
import os
import sys
import time
import types
from collections import ChainMap, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from fem import Energy, FunctionSpace, Lagrange, unit_square
from fem.kernels.program import UntraceableError
from fem.kernels.tape import check, record
from fem.kernels.tracing import at_random
from tests.fem.kernels.test_tracing import SCALARS

F64 = torch.float64
SHAPES = [(2,), (), (2,), ()]
LEVEL = 1.0
NAMED = contextvars.ContextVar("NAMED", default=1.0)


def half(g: torch.Tensor) -> torch.Tensor:
    return 0.5 * g.square().sum(-1)


def scaled(number: Callable[[], Any]) -> Callable[..., torch.Tensor]:
    """A density that asks for its coefficient."""
    return lambda x, u, g: number() * half(g)


@dataclasses.dataclass
class Material:
    k: float = 1.0
    shared = 1.0

    @property
    def twice_half(self) -> float:
        return self.k

    def method(self, x, u, g):
        return self.k * half(g)

    def __getitem__(self, name: str) -> float:
        return self.k

    def __float__(self) -> float:
        return self.k

    def __mul__(self, other: Any) -> Any:
        return self.k * other

    def __iter__(self):
        yield self.k

    def __call__(self, x, u, g):
        return self.k * half(g)

    def __len__(self) -> int:
        return int(self.k)


class Dynamic:
    def __init__(self) -> None:
        self.table = {"k": 1.0}

    def __getattr__(self, name: str) -> float:
        return self.__dict__["table"][name]


class Slotted:
    __slots__ = ("k",)


class Described:
    """A descriptor that reads elsewhere."""

    store: ClassVar = [1.0]

    def __get__(self, owner: Any, kind: Any = None) -> float:
        return self.store[0]


class Owner:
    k = Described()


class Buffered(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("k", torch.ones((), dtype=F64))
        self.scale, self.hook_scale = 1.0, [1.0]

    def forward(self, x, u, g):
        return self.k * self.scale * half(g)


Pair = namedtuple("Pair", "k other")


class Kind(Enum):
    SOFT, HARD = 1.0, 3.0


def with_default(x, u, g, k=1.0, *, m=1.0):
    return k * m * half(g)


def by_global(x, u, g):
    return LEVEL * half(g)


def attributed(x, u, g):
    return attributed.k * half(g)  # type: ignore[attr-defined]


def closure(k: Any) -> Callable[..., torch.Tensor]:
    return lambda x, u, g: k * half(g)


def set_cell(function: Any, value: Any) -> None:
    function.__closure__[0].cell_contents = value


def stateful(make: Callable[[], Any], read: Callable[[Any], Any], change: Callable[[Any], Any]) -> Callable[[], Any]:
    """A case: an object that a density reads, and how it changes."""

    def case() -> Any:
        state = make()
        return scaled(lambda: read(state)), lambda: change(state)

    return case


def other(density: Callable[[], Any], change: Callable[[Any], Any]) -> Callable[[], Any]:
    def case() -> Any:
        made = density()
        return made, lambda: change(made)

    return case


def cached_case() -> Any:
    state = [1.0]
    number = functools.lru_cache(lambda: state[0])

    def change() -> None:
        state[0] = 3.0
        number.cache_clear()

    return scaled(number), change


def file_case() -> Any:
    path = Path(os.environ["STALE_FOLDER"]) / "k.txt"
    path.write_text("1")
    return scaled(lambda: float(path.read_text())), lambda: path.write_text("3")


def saved_case() -> Any:
    path = Path(os.environ["STALE_FOLDER"]) / "k.npy"
    np.save(path, np.array([1.0]))
    return scaled(lambda: np.load(path)[0]), lambda: np.save(path, np.array([3.0]))


def module_case(name: str) -> Callable[[], Any]:
    def case() -> Any:
        folder = Path(os.environ["STALE_FOLDER"])
        (folder / f"{name}.py").write_text("K = 1.0\ndef density(x, u, g): return 0.5 * K * g.square().sum(-1)\n")
        before, kept = list(sys.path), sys.modules.pop(name, None)
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        try:
            own = importlib.import_module(name)
        finally:
            sys.path[:] = before
            sys.modules.pop(name, None)
            if kept is not None:
                sys.modules[name] = kept
        return own.density, lambda: setattr(own, "K", 3.0)

    return case


def class_case() -> Any:
    kind = type("Made", (), {"k": 1.0})
    return scaled(lambda: kind.k), lambda: setattr(kind, "k", 3.0)  # type: ignore[attr-defined]


def instance_over_class() -> Any:
    made = type("Made", (), {"k": 1.0})()
    return scaled(lambda: made.k), lambda: setattr(made, "k", 3.0)


def base_class() -> Any:
    base = type("Base", (), {"k": 1.0})
    made = type("Derived", (base,), {})()
    return scaled(lambda: made.k), lambda: setattr(base, "k", 3.0)


def replaced_method() -> Any:
    kind = type("Made", (), {"k": lambda self: 1.0})
    made = kind()
    return scaled(lambda: made.k()), lambda: setattr(kind, "k", lambda self: 3.0)


def partial_case() -> Any:
    made = functools.partial(with_default, m=1.0)
    return made, lambda: made.keywords.update(m=3.0)


def single_dispatch() -> Any:
    number = functools.singledispatch(lambda value: 1.0)
    return scaled(lambda: number(1)), lambda: number.register(int, lambda value: 3.0)


def large(kind: str) -> Callable[[], Any]:
    def case() -> Any:
        array = np.ones(5000)
        tensor = torch.from_numpy(array)
        change = {"numpy": lambda: array.fill(3.0), "data": lambda: tensor.data.fill_(3.0)}
        change["view"] = lambda: tensor[:10].fill_(3.0)
        change["memory"] = lambda: (
            memoryview(array.view(np.uint8)).cast("B").__setitem__(slice(None), np.full(5000, 3.0).tobytes())
        )
        return (lambda x, u, g: tensor[1] * half(g)), change[kind]

    return case


def branch(x, u, g):
    return half(g) if LEVEL < 2 else 3 * half(g)


def structure(x, u, g):
    return (half if LEVEL < 2 else lambda g: 1.5 * (g * g).sum(-1))(g)


def threshold_case() -> Any:
    edge = [2.0]  # beyond every point at first: only part of the domain changes
    return (lambda x, u, g: torch.where(x[..., 0] > edge[0], 5.0, 1.0) * half(g)), lambda: edge.__setitem__(0, 0.5)


ns = types.SimpleNamespace
CASES: dict[str, Callable[[], Any]] = {
    "getattr": stateful(lambda: ns(k=1.0), lambda s: getattr(s, "k"), lambda s: setattr(s, "k", 3.0)),  # noqa: B009
    "getattr by a made name": stateful(
        lambda: ns(kk=1.0), lambda s: getattr(s, "k" * 2), lambda s: setattr(s, "kk", 3.0)
    ),
    "vars": stateful(lambda: ns(k=1.0), lambda s: vars(s)["k"], lambda s: setattr(s, "k", 3.0)),
    "__dict__": stateful(lambda: ns(k=1.0), lambda s: s.__dict__["k"], lambda s: s.__dict__.update(k=3.0)),
    "attrgetter": stateful(lambda: ns(k=1.0), operator.attrgetter("k"), lambda s: setattr(s, "k", 3.0)),
    "nested attrgetter": stateful(
        lambda: ns(a=ns(k=1.0)), operator.attrgetter("a.k"), lambda s: setattr(s.a, "k", 3.0)
    ),
    "itemgetter": stateful(lambda: {"k": 1.0}, operator.itemgetter("k"), lambda s: s.update(k=3.0)),
    "astuple": stateful(Material, lambda s: dataclasses.astuple(s)[0], lambda s: setattr(s, "k", 3.0)),
    "asdict": stateful(Material, lambda s: dataclasses.asdict(s)["k"], lambda s: setattr(s, "k", 3.0)),
    "fields": stateful(Material, lambda s: getattr(s, dataclasses.fields(s)[0].name), lambda s: setattr(s, "k", 3.0)),
    "property": stateful(Material, lambda s: s.twice_half, lambda s: setattr(s, "k", 3.0)),
    "bound method": other(lambda: Material().method, lambda d: setattr(d.__self__, "k", 3.0)),
    "callable object": other(Material, lambda d: setattr(d, "k", 3.0)),
    "item of an object": stateful(Material, lambda s: s["any"], lambda s: setattr(s, "k", 3.0)),
    "float of an object": stateful(Material, float, lambda s: setattr(s, "k", 3.0)),
    "product with an object": other(
        lambda: (lambda s: functools.partial(lambda s, x, u, g: s * half(g), s))(Material()),
        lambda d: setattr(d.args[0], "k", 3.0),
    ),
    "iterator": stateful(Material, lambda s: next(iter(s)), lambda s: setattr(s, "k", 3.0)),
    "length": stateful(Material, len, lambda s: setattr(s, "k", 3.0)),
    "__getattr__": stateful(Dynamic, lambda s: s.k, lambda s: s.table.update(k=3.0)),
    "slot": stateful(lambda: (s := Slotted(), setattr(s, "k", 1.0))[0], lambda s: s.k, lambda s: setattr(s, "k", 3.0)),
    "descriptor": stateful(Owner, lambda s: s.k, lambda s: Described.store.__setitem__(0, 3.0)),
    "attribute of a class": class_case,
    "attribute over that of the class": instance_over_class,
    "attribute of a base class": base_class,
    "another method": replaced_method,
    "closure": other(lambda: closure(1.0), lambda d: set_cell(d, 3.0)),
    "tensor in a closure": other(lambda: closure(torch.ones((), dtype=F64)), lambda d: set_cell(d, torch.tensor(3.0))),
    "default": other(lambda: with_default, lambda d: setattr(d, "__defaults__", (3.0,))),
    "keyword default": other(lambda: with_default, lambda d: setattr(d, "__kwdefaults__", {"m": 3.0})),
    "code": other(
        lambda: types.FunctionType((lambda x, u, g: half(g)).__code__, globals()),
        lambda d: setattr(d, "__code__", (lambda x, u, g: 3 * half(g)).__code__),
    ),
    "partial": partial_case,
    "global": other(lambda: by_global, lambda d: d.__globals__.update(LEVEL=3.0)),
    "globals()": other(lambda: scaled(lambda: globals()["LEVEL"]), lambda d: globals().update(LEVEL=3.0)),
    "eval": other(lambda: scaled(lambda: eval("LEVEL")), lambda d: globals().update(LEVEL=3.0)),
    "branch": other(lambda: branch, lambda d: globals().update(LEVEL=3.0)),
    "other operations": other(lambda: structure, lambda d: globals().update(LEVEL=3.0)),
    "attribute of a function": other(lambda: attributed, lambda d: setattr(d, "k", 3.0)),
    "list": stateful(lambda: [1.0], lambda s: s[0], lambda s: s.__setitem__(0, 3.0)),
    "sum of a list": stateful(lambda: [1.0], sum, lambda s: s.append(2.0)),
    "set": stateful(lambda: {1.0}, max, lambda s: s.add(3.0)),
    "deque": stateful(lambda: deque([1.0]), lambda s: s[-1], lambda s: s.append(3.0)),
    "dictionary of lists": stateful(
        lambda: {"steel": [1.0, 0.3]}, lambda s: s["steel"][0], lambda s: s["steel"].__setitem__(0, 3.0)
    ),
    "UserDict": stateful(lambda: UserDict(k=1.0), lambda s: s["k"], lambda s: s.update(k=3.0)),
    "UserList": stateful(lambda: UserList([1.0]), lambda s: s[0], lambda s: s.__setitem__(0, 3.0)),
    "ChainMap": stateful(lambda: ChainMap({}, {"k": 1.0}), lambda s: s["k"], lambda s: s.maps[1].update(k=3.0)),
    "defaultdict": stateful(lambda: defaultdict(lambda: 1.0), lambda s: s["k"], lambda s: s.update(k=3.0)),
    "mapping proxy": stateful(
        lambda: (d := {"k": 1.0}, types.MappingProxyType(d)), lambda s: s[1]["k"], lambda s: s[0].update(k=3.0)
    ),
    "named tuple": stateful(lambda: [Pair(1.0, 0)], lambda s: s[0].k, lambda s: s.__setitem__(0, Pair(3.0, 0))),
    "enumeration": stateful(lambda: [Kind.SOFT], lambda s: s[0].value, lambda s: s.__setitem__(0, Kind.HARD)),
    "ContextVar": stateful(lambda: NAMED, lambda s: s.get(), lambda s: s.set(3.0)),
    "environment": stateful(
        lambda: os.environ.__setitem__("STALE_K", "1"),
        lambda s: float(os.environ["STALE_K"]),
        lambda s: os.environ.__setitem__("STALE_K", "3"),
    ),
    "os.getenv": stateful(
        lambda: os.environ.__setitem__("STALE_K", "1"),
        lambda s: float(os.getenv("STALE_K", "0")),
        lambda s: os.environ.__setitem__("STALE_K", "3"),
    ),
    "file": file_case,
    "array in a file": saved_case,
    "module named profile": module_case("profile"),
    "module named token": module_case("token"),
    "module named statistics": module_case("statistics"),
    "attribute of the sys module": stateful(
        lambda: setattr(sys, "stale_k", 1.0), lambda s: sys.stale_k, lambda s: setattr(sys, "stale_k", 3.0)
    ),
    "small array": stateful(lambda: np.ones(3), lambda s: float(s[0]), lambda s: s.__setitem__(0, 3.0)),
    "number of an array": stateful(lambda: np.ones(3), lambda s: s[0], lambda s: s.fill(3.0)),
    "record array": stateful(
        lambda: np.ones(1, dtype=[("k", float)]), lambda s: float(s["k"][0]), lambda s: s["k"].fill(3.0)
    ),
    "tensor in place": stateful(lambda: torch.ones(2, dtype=F64), lambda s: s[1], lambda s: s.fill_(3.0)),
    "tensor by data": stateful(lambda: torch.ones(2, dtype=F64), lambda s: s[1], lambda s: s.data.fill_(3.0)),
    "item of a tensor": stateful(lambda: torch.ones(2), lambda s: s[1].item(), lambda s: s.data.fill_(3.0)),
    "large tensor through NumPy": large("numpy"),
    "large tensor through data": large("data"),
    "large tensor through a view": large("view"),
    "large tensor through its memory": large("memory"),
    "buffer of a network": other(Buffered, lambda d: d.k.fill_(3.0)),
    "attribute of a network": other(Buffered, lambda d: setattr(d, "scale", 3.0)),
    "lru_cache": cached_case,
    "singledispatch": single_dispatch,
    "part of the domain": threshold_case,
}
AFTER = {"part of the domain": 1.5}


@pytest.mark.parametrize("name", CASES)
def test_a_program_never_outlives_its_density(name: str, monkeypatch: Any, tmp_path: Path) -> None:
    """∫ k/2 |∇u|² of u = x is k/2, with k as it is when the energy is called."""
    monkeypatch.setattr("fem.forms.traced.loops.GRID_CELLS", 1)
    monkeypatch.setenv("STALE_FOLDER", str(tmp_path))
    monkeypatch.setenv("STALE_K", "1")
    monkeypatch.setitem(globals(), "LEVEL", 1.0)
    monkeypatch.setattr(with_default, "__defaults__", (1.0,))
    monkeypatch.setattr(with_default, "__kwdefaults__", {"m": 1.0})
    monkeypatch.setattr(attributed, "k", 1.0, raising=False)
    monkeypatch.setattr(Described, "store", [1.0])
    monkeypatch.setattr(sys, "stale_k", 1.0, raising=False)
    V = FunctionSpace(unit_square(4), Lagrange(1))
    u = V.mesh.nodes[:, 0].clone()

    def run() -> None:
        density, change = CASES[name]()
        energy = Energy(V, density)
        assert energy(u).item() == pytest.approx(0.5)
        slope = energy.residual(u)
        change()
        for current in (energy, Energy(V, density)):
            assert current(u).item() == pytest.approx(AFTER.get(name, 1.5))
            assert torch.allclose(current.residual(u), AFTER.get(name, 1.5) / 0.5 * slope) or name in AFTER

    contextvars.copy_context().run(run)


def test_lambdas_made_anew_are_one() -> None:
    """A density in a loop is traced once, and another number makes another tape."""
    tapes = [record(lambda x, u, g, k, n=n: n * half(g) + k * u, SHAPES, F64) for n in (1.0, 1.0, 2.0)]
    assert tapes[0] == tapes[1] != tapes[2]
    assert hash(tapes[0]) == hash(tapes[1])
    zero, minus, nan = (record(closure(n), SHAPES[:3], F64) for n in (0.0, -0.0, float("nan")))
    assert zero != minus
    assert nan == record(closure(float("nan")), SHAPES[:3], F64)


@pytest.mark.parametrize("name", SCALARS)
def test_a_tape_gives_what_the_density_gives(name: str) -> None:
    density = SCALARS[name]
    try:
        tape = record(density, SHAPES, F64)
        check(density, SHAPES, F64, tape)
    except UntraceableError:
        return  # the density itself is called then
    point = at_random(SHAPES, F64, 0.3)
    torch.testing.assert_close(tape.run(*point), density(*point), rtol=0, atol=0)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        return 2 * u

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return 5 * grads[0]


def swallowed(x, u, g, k):
    try:
        return u * float(x[0])
    except Exception:
        return u * 0.3


def by_pointer(x, u, g, k):
    address = u.data_ptr()
    return u * address


LEAVING = {
    "numpy": lambda x, u, g, k: u * torch.from_numpy(x.detach().numpy())[0],
    "where of NumPy": lambda x, u, g, k: u * torch.from_numpy(np.where(x.detach().numpy() > 5, 1.0, 2.0))[0],
    "asarray": lambda x, u, g, k: u * float(np.asarray(x.detach())[0] > 5),
    "array": lambda x, u, g, k: u * float(np.array(x.detach())[0] > 5),
    "dlpack": lambda x, u, g, k: u * float(np.from_dlpack(x.detach())[0] > 5),
    "capsule": lambda x, u, g, k: u * torch.from_dlpack(torch.utils.dlpack.to_dlpack(x.detach()))[0],
    "tolist": lambda x, u, g, k: u * (1.0 if x.tolist()[0] > 5 else 2.0),
    "item": lambda x, u, g, k: u * (1.0 if x[0].item() > 5 else 2.0),
    "float": lambda x, u, g, k: u * (1.0 if float(x[0].detach()) > 5 else 2.0),
    "int": lambda x, u, g, k: u * int(x[0].detach()),
    "bool": lambda x, u, g, k: u * bool(x[0] > 5),
    "branch": lambda x, u, g, k: u if x[0] < 5 else 2 * u,
    "equal": lambda x, u, g, k: u * (1.0 if torch.equal(x, x + 1) else 2.0),
    "allclose": lambda x, u, g, k: u * (1.0 if torch.allclose(x, x + 1) else 2.0),
    "repr": lambda x, u, g, k: u * len(repr(x.detach())),
    "format": lambda x, u, g, k: u * len(f"{x[0].detach()}"),
    "pointer": by_pointer,
    "storage": lambda x, u, g, k: u * x.untyped_storage().nbytes(),
    "contains": lambda x, u, g, k: u * (1.0 if 5.0 in x else 2.0),
    "swallowed error": swallowed,
    "random": lambda x, u, g, k: u * torch.rand((), dtype=F64),
    "random of Python": lambda x, u, g, k: u * np.random.default_rng().random(),
    "time": lambda x, u, g, k: u * time.perf_counter(),
    "derivative of its own": lambda x, u, g, k: Doubled.apply(u),
    "derivative of its own inside": lambda x, u, g, k: Doubled.apply(u).sin() * k,
    "captured gradient": lambda x, u, g, k: u * torch.ones((), requires_grad=True),
    "writes into a captured tensor": lambda x, u, g, k: torch.zeros((), dtype=F64).add_(u),
    "gives a number": lambda x, u, g, k: 3.0,
}


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.filterwarnings("ignore")
def test_numbers_that_leave_tensors_are_refused(name: str) -> None:
    with pytest.raises(UntraceableError):
        check(LEAVING[name], SHAPES, F64, record(LEAVING[name], SHAPES, F64))
