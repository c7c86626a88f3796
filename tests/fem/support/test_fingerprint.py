"""Fingerprints: the same while nothing changes that a function depends on, another as soon as something does."""

import gc
import types
import weakref
from dataclasses import dataclass
from functools import cached_property, partial, wraps

import numpy as np
import pytest
import torch

from fem.support.fingerprint import KEPT, Same, _made, cached, fingerprint

LEVEL = 1.0
TABLE = {"steel": [210.0, 0.3]}
WEIGHTS = torch.tensor([1.0, 2.0])
ARRAY = np.array([1.0, 2.0])
SETTINGS = types.ModuleType("settings_of_a_test")
SETTINGS.level = 1.0


def inner(u):
    return u * LEVEL


def outer(u):
    return inner(u) + (lambda v: TABLE["steel"][0] * v)(u)


def by_tensor(u):
    return (WEIGHTS * u).sum()


def by_array(u):
    return u * ARRAY[0]


def by_module(u):
    return u * SETTINGS.level


@dataclass
class Material:
    E: float
    unused: float = 0.0

    def density(self, u):
        return self.scaled(u) + self.twice

    def scaled(self, u):
        return helper(self) * u

    @property
    def twice(self):
        return 2 * self.hidden

    hidden = 1.0

    def __call__(self, u):
        return self.E * u


def helper(material):
    return material.E


class Slotted:
    __slots__ = ("level",)

    def __call__(self, u):
        return self.level * u


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.scale = 1.0

    def forward(self, u):
        return self.layer(u) * self.scale


class Lazy:
    level = 1.0

    @cached_property
    def value(self):
        return self.level

    @staticmethod
    def half(u):
        return u * LEVEL

    def __call__(self, u):
        return self.value * Lazy.half(u)


def decorated(function):
    @wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


def closure(level):
    def density(u):
        return level * u

    return density


def attributed(u):
    return u * attributed.level


attributed.level = 1.0


def set_cell(function, value):
    function.__closure__[0].cell_contents = value


def set_global(name, value):
    def change(_):
        globals()[name] = value

    return change


def material():
    return Material(1.0)


def slotted():
    made = Slotted()
    made.level = 1.0
    return made


def with_defaults(u, level=1.0, *, other=2.0):
    return u * level * other


def generator_free():
    def density(u):
        return sum(LEVEL * u for _ in range(2))

    return density


# name: (make the function, change something)
CHANGES = {
    "closure": (lambda: closure(1.0), lambda f: set_cell(f, 2.0)),
    "closure, another sign of zero": (lambda: closure(0.0), lambda f: set_cell(f, -0.0)),
    "closure, another type": (lambda: closure(1), lambda f: set_cell(f, True)),
    "tensor in a closure": (lambda: closure(torch.ones(2)), lambda f: set_cell(f, torch.zeros(2))),
    "tensor in a closure, another type": (
        lambda: closure(torch.ones(2)),
        lambda f: set_cell(f, torch.ones(2).double()),
    ),
    "gradients wanted": (lambda: closure(torch.ones(2)), lambda f: f.__closure__[0].cell_contents.requires_grad_()),
    "global of a function of a function": (lambda: outer, set_global("LEVEL", 2.0)),
    "global function": (lambda: outer, set_global("inner", lambda u: 3 * u)),
    "entry of a global dictionary": (lambda: outer, lambda f: TABLE["steel"].__setitem__(0, 200.0)),
    "tensor changed in place": (lambda: by_tensor, lambda f: WEIGHTS.add_(1)),
    "tensor changed behind PyTorch's back": (lambda: by_tensor, lambda f: WEIGHTS.data.mul_(3)),
    "array changed in place": (lambda: by_array, lambda f: ARRAY.__setitem__(0, 5.0)),
    "large tensor changed in place": (
        lambda: closure(torch.ones(5000)),
        lambda f: f.__closure__[0].cell_contents.add_(1),
    ),
    "attribute of a module": (lambda: by_module, lambda f: setattr(SETTINGS, "level", 2.0)),
    "default": (lambda: with_defaults, lambda f: setattr(f, "__defaults__", (7.0,))),
    "keyword default": (lambda: with_defaults, lambda f: setattr(f, "__kwdefaults__", {"other": 7.0})),
    "partial": (
        lambda: partial(with_defaults, other=[1.0]),
        lambda f: f.keywords["other"].__setitem__(0, 2.0),
    ),
    "attribute of a bound method's object": (lambda: material().density, lambda f: setattr(f.__self__, "E", 2.0)),
    "attribute behind a property": (lambda: material().density, lambda f: setattr(f.__self__, "hidden", 2.0)),
    "attribute of the class": (lambda: material().density, lambda f: setattr(Material, "hidden", 3.0)),
    "attribute of a callable object": (material, lambda f: setattr(f, "E", 2.0)),
    "slot of a callable object": (slotted, lambda f: setattr(f, "level", 2.0)),
    "attribute of a function": (lambda: attributed, lambda f: setattr(f, "level", 2.0)),
    "object in a closure": (lambda: closure(material()), lambda f: set_cell(f, material())),
    "cached property": (Lazy, lambda f: setattr(f, "level", 2.0)),
    "global of a static method": (Lazy, set_global("LEVEL", 4.0)),
    "global of a decorated function": (lambda: decorated(inner), set_global("LEVEL", 5.0)),
    "global in a generator": (generator_free, set_global("LEVEL", 6.0)),
    "weight of a network": (Net, lambda f: f.layer.weight.data.mul_(2)),
    "attribute of a network": (Net, lambda f: setattr(f, "scale", 2.0)),
    "mode of a network": (Net, lambda f: f.eval()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in ("LEVEL", "inner"):
        monkeypatch.setitem(globals(), known, globals()[known])
    monkeypatch.setattr(with_defaults, "__defaults__", (1.0,))
    monkeypatch.setattr(Material, "hidden", 1.0)
    make, change = CHANGES[name]
    function = make()
    before = fingerprint(function)
    assert fingerprint(function) == before
    assert hash(fingerprint(function)) == hash(before)
    change(function)
    assert fingerprint(function) != before


def test_what_the_code_does_not_mention_does_not_count() -> None:
    made = material()
    function = made.density
    before = fingerprint(function)
    made.unused = 5.0
    made.history = [1.0, 2.0]
    globals()["UNRELATED"] = 3.0
    assert fingerprint(function) == before


def test_functions_made_anew_are_the_same() -> None:
    """A `lambda` in a loop: the same code with the same closure is the same function."""
    assert fingerprint(closure(1.0)) == fingerprint(closure(1.0))
    assert fingerprint(closure(torch.ones(3))) == fingerprint(closure(torch.ones(3)))
    assert fingerprint(closure(float("nan"))) == fingerprint(closure(float("nan")))
    made = [lambda u: u * 1.0 for _ in range(2)]
    assert fingerprint(made[0]) == fingerprint(made[1])
    assert fingerprint(made[0]) != fingerprint(lambda u: u * 2.0)


def test_an_object_at_the_address_of_another_is_another() -> None:
    """A large tensor is told by identity; the next one may well get its id."""
    prints = set()
    for _ in range(50):
        prints.add(fingerprint(closure(torch.zeros(5000))))
    assert len(prints) == 50


def test_functions_that_refer_to_themselves() -> None:
    def factorial(n):
        return n * factorial(n - 1) if n > 1 else LEVEL

    assert fingerprint(factorial) == fingerprint(factorial)
    loop: list = []
    loop.append(loop)
    assert fingerprint(closure(loop)) == fingerprint(closure(loop))

    def early():
        return later

    fingerprint(early)
    if LEVEL < 0:
        later = 1.0


def test_shared_objects_are_visited_once() -> None:
    shared: list = [1.0]
    for _ in range(200):
        shared = [shared, shared]
    fingerprint(closure(shared))


def test_things_are_made_once_and_again_after_a_change() -> None:
    made = []
    level = [1.0]

    def density(u):
        return level[0] * u

    def make():
        made.append(level[0])
        return object()

    first = cached(density, "key", make)
    assert cached(density, "key", make) is first
    assert cached(density, "other key", make) is not first
    level[0] = 2.0
    assert cached(density, "key", make) is not first
    level[0] = 1.0
    assert cached(density, "key", make) is first
    assert made == [1.0, 1.0, 2.0]


def test_only_so_many_things_are_kept() -> None:
    first = cached(inner, "first", object)
    for i in range(KEPT - 1):
        cached(inner, i, object)
        assert cached(inner, "first", object) is first  # used, and so kept
    for i in range(KEPT + 5):
        cached(inner, ("more", i), object)
    assert len(_made) == KEPT
    assert cached(inner, "first", object) is not first


def test_nothing_is_kept_alive() -> None:
    big, owner = torch.zeros(5000), material()

    def density(u):
        return big.sum() * owner.E * u

    cached(density, "key", object)
    gone = [weakref.ref(t) for t in (density, big, owner)]
    bound = material().density
    cached(bound, "key", object)
    gone.append(weakref.ref(bound.__self__))
    del density, big, owner, bound
    gc.collect()
    assert [g() for g in gone] == [None] * 4


def test_same() -> None:
    a, b = [Material(1.0) for _ in range(2)]
    assert Same(a) == Same(a)
    assert a == b
    assert Same(a) != Same(b)
    assert Same(a) != "a"
