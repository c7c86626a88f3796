"""Several sets of ties as one: masters that follow others are replaced by what they follow.

With u = M u + o of all ties, M zero but for the rows of slaves, F and D the identity at free dofs and at slaves,

    u = (M F + M D M) u + (1 + M D) o,

again and again until M D = 0. A dof that two of them tie must be the same by both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

LONGEST = 16  # chain of ties


def composed(n: int, sets: Sequence[tuple[np.ndarray, Any, float]]) -> tuple[np.ndarray, Any, Any, list[int]]:
    """Slaves, the coefficients "k n" of what they follow, and those "k m" of all offsets of all sets.

    Args:
        n: number of dofs.
        sets: slaves, the coefficients of what they follow, and by how much these may differ from those of the sets
            before where they tie a dof again.

    Returns:
        also the sets that do tie dofs again.

    Raises:
        ValueError: a dof that is tied twice, to different things; dofs that follow one another in circles.
    """
    import scipy.sparse

    every = np.concatenate([slaves for slaves, *_ in sets])
    slaves, first = np.unique(every, return_index=True)
    k, m, is_slave = len(slaves), len(every), np.zeros(n)
    is_slave[slaves] = 1
    D, F = scipy.sparse.diags_array(is_slave), scipy.sparse.diags_array(1 - is_slave)
    offsets = scipy.sparse.csr_array((np.ones(k), (slaves, first)), shape=(n, m))
    M = offsets @ scipy.sparse.vstack([rows for _, rows, _ in sets])
    for _ in range(LONGEST):
        if abs(M @ D).sum() == 0:
            break
        M, offsets = M @ F + M @ D @ M, offsets + M @ D @ offsets
    else:
        raise ValueError("dofs are tied in circles: each follows others that follow it.")
    T, start, again = scipy.sparse.csr_array(M + F), 0, []
    for i, (own, rows, agreement) in enumerate(sets):
        twice = ~np.isin(start + np.arange(len(own)), first)
        start += len(own)
        if not twice.any():
            continue
        again.append(i)
        apart = abs(T[own[twice]] - rows[twice] @ T).max(axis=1).toarray().ravel()
        if apart.max() > agreement:
            raise ValueError(
                f"dof {own[twice][apart.argmax()]} is tied twice, and not to the same ({int(twice.sum())} dofs are): "
                f"coefficients differ by {apart.max():.3g}."
            )
    return slaves, scipy.sparse.coo_array(M[slaves]), scipy.sparse.coo_array(offsets[slaves]), again
