"""Statuses of solvers and fits: texts, batches of them, and which of them raise."""

from types import SimpleNamespace

import pytest
import torch

import fem
import nurbs
import solvers
from fem.support.status import ConvergenceError, Status, check_fit, first_failure, flatten, nest, worst


def test_there_is_one_status_and_one_error():
    assert fem.Status is solvers.Status is nurbs.FitStatus is Status
    assert fem.ConvergenceError is solvers.ConvergenceError is ConvergenceError


def test_no_status_lacks_a_text_of_its_own():
    assert len({str(s) for s in Status}) == len(Status) == 8


@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 3), (2, 1, 2), (0,)])
def test_statuses_nest_like_the_batch(batch):
    statuses = [list(Status)[i % len(Status)] for i in range(torch.Size(batch).numel())]
    nested = nest(statuses, batch)
    assert flatten(nested) == statuses
    shape, part = [], nested
    while isinstance(part, tuple):
        shape.append(len(part))
        if not part:
            break
        part = part[0]
    assert tuple(shape) == batch


def test_the_first_failure_is_named_with_their_number():
    good, bad, worse = Status.CONVERGED, Status.STALLED, Status.NOT_FINITE
    assert (first_failure(good), first_failure(((good,), (good,)))) == (None, None)
    assert first_failure(bad) == (0, str(bad))
    assert first_failure(((good, good), (bad, worse))) == (2, f"2 of 4 batch items (the first is 2): {bad}")
    assert first_failure((bad, worse), (good, bad)) == (1, f"1 of 2 batch items (the first is 1): {worse}")
    assert worst(((good, bad), (Status.SADDLE, good))) is bad
    assert worst(((good, bad), (worse, good))) is worse
    assert worst((good,)) is good


@pytest.mark.parametrize("status", Status)
def test_a_fit_fails_where_its_numbers_are_not_finite(status):
    fit = SimpleNamespace(status=(Status.CONVERGED, status))
    if status is not Status.NOT_FINITE:
        assert check_fit("fit(x)", fit, True) is fit
        return
    with pytest.raises(ConvergenceError, match=r"`fit\(x\)`: 1 of 2 batch items .* `throw=False`") as caught:
        check_fit("fit(x)", fit, True)
    assert caught.value.solution is fit
    assert check_fit("fit(x)", fit, False) is fit
