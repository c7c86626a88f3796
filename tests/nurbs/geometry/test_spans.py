"""Patches on single spans: the same map, differentiable, also where items repeat different knots."""

import torch

from nurbs import Curve
from nurbs.geometry.spans import flat_batch, nonempty_spans, on_spans
from tests.nurbs.patches import PATCHES, random


def test_every_span_is_the_same_map() -> None:
    for name, patch in PATCHES.items():
        flat = flat_batch(patch.unwrapped(), patch.batch)
        item, spans = nonempty_spans(flat)
        pieces = on_spans(flat, item, spans)
        u = [
            torch.lerp(t[:, p, None], t[:, p + 1, None], random(len(t), 4))
            for t, p in zip(pieces.knots, pieces.degree, strict=True)
        ]
        expected = flat[item](*u)
        torch.testing.assert_close(pieces(*u), expected, msg=lambda text, name=name: f"{name}: {text}")


def test_empty_spans_are_left_out_item_by_item() -> None:
    knots = torch.tensor([[0.0, 0, 0, 0.5, 0.5, 1, 1, 1], [0, 0, 0, 0.3, 0.7, 1, 1, 1]]).double()
    item, (span,) = nonempty_spans(flat_batch(Curve(random(5, 2), None, knots, 2), (2,)))
    assert item.tolist() == [0, 0, 1, 1, 1]
    assert span.tolist() == [2, 4, 2, 3, 4]
