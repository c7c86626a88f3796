"""What is kept is bounded, goes with its owner, and is one for all threads."""

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from fem.support import cache
from fem.support.cache import ByObject, Store


class Owner:
    pass


def test_the_least_recently_used_goes_first() -> None:
    store, made = Store("numbers", 3), []
    for key in (1, 2, 3, 1, 4, 1, 2):
        assert store.get(key, lambda key=key: (made.append(key), 10 * key)[1]) == 10 * key
    assert made == [1, 2, 3, 4, 2]
    assert len(store) == 3


def test_put_replaces_and_take_removes() -> None:
    store = Store("numbers", 3)
    store.put("a", 1)
    assert store.put("a", 2) == 2
    assert store.get("a", int) == 2
    assert store.take("a") == 2
    assert store.take("a") is None
    assert store.get("a", int) == 0


def test_entries_go_with_their_owner() -> None:
    store, (one, other) = Store("parts", 10), (Owner(), Owner())
    for owner in (one, other):
        assert store.get("first", object, owner) is store.get("first", object, owner)
        store.get("second", object, owner)
    assert store.get("first", object, one) is not store.get("first", object, other)
    assert len(store) == 4
    del one
    gc.collect()
    assert len(store) == 2
    del other, owner
    gc.collect()
    assert len(store) == 0


def test_threads_share_what_is_made_first() -> None:
    store, together = Store("objects", 5), Barrier(4)

    def make() -> object:
        together.wait(10)  # all of them are at it
        return object()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: store.get("key", make), range(4)))
    assert all(f is found[0] for f in found)


def test_threads_keep_to_the_bound() -> None:
    store = Store("numbers", 7)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: store.get(i % 23, lambda: i % 23), range(4000)))
    assert found == [i % 23 for i in range(4000)]
    assert len(store) == 7


def test_sizes_and_clear() -> None:
    stores = [Store("of a test", 5) for _ in range(2)]
    for store in stores:
        store.get("key", object)
    assert cache.sizes()["of a test"] == 2
    cache.clear()
    assert set(cache.sizes().values()) == {0}


def test_what_is_known_of_an_object_dies_with_it() -> None:
    kept, key = ByObject(), Owner()
    kept[key] = [1]
    assert not copy.deepcopy(kept)
    assert not pickle.loads(pickle.dumps(kept))
    assert len(kept) == 1
    del key
    gc.collect()
    assert not kept
