"""What is kept from one call to the next, besides what objects hold themselves: bounded, behind one lock.

| what | where | kept until |
|---|---|---|
| programs and loops of densities | `fem.kernels.integrand` | 256 others were used |
| libraries of C code, and the work that waits for one | `fem.support.native` | 1024 others were used |
| kernels of `torch.compile`, shape by shape | `fem.support.compilation` | 256 others were used, or the kernel dies |
| that there is no compiler, or one that hangs | `fem.support.compilation`, `native` | `clear` |
| layouts of cells, nodes as dofs | `fem.kernels.cells.layout`, `fem.forms.traced.places` | numbering or mesh die |
| boxes around cells | `fem.mesh.search.location` | the mesh dies or its nodes change, or 64 others were searched |
| axes of grids that ties make periodic | `solvers.operators.periodic_grid` | the ties die, or 64 others were used |
| quasi-random sequences, where they were left | the families of random problems | 16 others were used |

`sizes` counts them, `clear` forgets them: nothing but time depends on it. Tables of pure functions of a few small
numbers (reference elements, quadrature rules, texts of C files) stand in `functools` caches beside the functions.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

from fem.support.transforms import outside_transforms

_stores: "WeakSet[Store]" = WeakSet()


class Store:
    """Results by their keys; those that have not been asked for the longest go first. Safe to use by several threads.

    Args:
        name: what it keeps, for `sizes`.
        most: entries.
    """

    _lock = RLock()  # one for all; not the module's, which is emptied when the interpreter ends

    def __init__(self, name: str, most: int):
        self.name, self.most = name, most
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        with self._lock:
            _stores.add(self)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, make: Callable[[], Any], owner: Any = None) -> Any:
        """The value of a key, made if there is none: of several threads that make it at once the first one's counts.

        Args:
            owner: an object without which the value is of no use; the entry goes with it.
        """
        full = key if owner is None else (ref(owner), key)
        with self._lock:
            if full in self._kept:
                self._kept.move_to_end(full)
                return self._kept[full]
        with outside_transforms():
            made = make()  # without the lock, since it can take long and ask for other things
        with self._lock:
            return self._kept[full] if full in self._kept else self.put(key, made, owner)

    def put(self, key: Hashable, value: Any, owner: Any = None) -> Any:
        """Keep a value, in place of what is there."""
        full = key if owner is None else (ref(owner, self._forget), key)
        with self._lock:
            self._kept.pop(full, None)
            self._kept[full] = value
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return value

    def take(self, key: Hashable) -> Any:
        """A value that its key loses, None without one: what changes as it is used belongs to one user at a time."""
        with self._lock:
            return self._kept.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def _forget(self, owner: Any) -> None:
        """Drop the entries of an object that is no more."""
        with self._lock:
            for key in [k for k in self._kept if isinstance(k, tuple) and k[0] is owner]:
                del self._kept[key]


class ByObject(WeakKeyDictionary):
    """What is known of objects, by their identity, for as long as they live; copies of it are empty."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ByObject, ()

    def __deepcopy__(self, memo: Any) -> "ByObject":
        return ByObject()


def sizes() -> dict[str, int]:
    """How many entries there are of each kind."""
    found: dict[str, int] = {}
    with Store._lock:
        for store in _stores:
            found[store.name] = found.get(store.name, 0) + len(store)
    return found


def clear() -> None:
    """Forget everything that is kept here."""
    with Store._lock:
        for store in list(_stores):
            store.clear()
