"""How good a mask is: overlap, boundaries, objects, and what does not belong there: false components and holes."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fem.support.checks import check_kind, check_numbers, refuse
from segmentation.components import components


def check_masks(call: str, prediction: Any, truth: Any) -> None:
    """Raise where the two are no masks of one shape.

    Raises:
        ValueError, TypeError: with shapes or types.
    """
    for name, mask in (("prediction", prediction), ("truth", truth)):
        check_kind(call, name, mask, Tensor, "a mask, a tensor of bool")
        if mask.dtype != torch.bool:
            raise TypeError(f"`{call}({name}=...)` must be of bool; got {mask.dtype}. `image > 0.5` makes a mask.")
    if prediction.shape != truth.shape:
        shapes = f"{tuple(prediction.shape)} and {tuple(truth.shape)}"
        raise ValueError(f"`{call}` compares masks of one shape; got {shapes}.")


def check_labels(call: str, **images: Any) -> None:
    """Raise where an image does not number its objects: truth values make one object of all, other numbers many.

    Raises:
        TypeError: with what numbers them.
    """
    for name, image in images.items():
        check_kind(call, name, image, Tensor, "labels, a tensor of integers")
        if image.is_floating_point() or image.dtype == torch.bool:
            raise TypeError(
                f"`{call}({name}=...)` must be integers that number objects; got {image.dtype}. "
                "`label_components(mask)` numbers the components of a mask."
            )


def jaccard(prediction: Bool[Tensor, "b y x"], truth: Bool[Tensor, "b y x"]) -> Float[Tensor, "b"]:
    """|P ∩ T| / |P ∪ T| of each image; 1 where both are empty."""
    check_masks("jaccard", prediction, truth)
    both, either = (p.flatten(1).sum(1).double() for p in (prediction & truth, prediction | truth))
    return torch.where(either > 0, both / either.clamp(min=1), 1)


def pooled_jaccard(prediction: Bool[Tensor, "b y x"], truth: Bool[Tensor, "b y x"]) -> float:
    """|P ∩ T| / |P ∪ T| over the pixels of all images together."""
    check_masks("pooled_jaccard", prediction, truth)
    either = int((prediction | truth).sum())
    return int((prediction & truth).sum()) / either if either else 1.0


def false_components(prediction: Bool[Tensor, "b y x"], truth: Bool[Tensor, "b y x"]) -> Int[Tensor, "b"]:
    """Components (8 neighbours) of the prediction without a pixel of the true foreground."""
    check_masks("false_components", prediction, truth)
    labels, counts = components(prediction, 2)
    return counts - distinct(torch.where(truth, labels, 0))


def holes(prediction: Bool[Tensor, "b y x"], truth: Bool[Tensor, "b y x"]) -> Int[Tensor, "b"]:
    """Holes of the prediction that are none in truth: components (4 neighbours) of its background that do not reach the
    edge of the image, and lie in the true foreground by more than half."""
    check_masks("holes", prediction, truth)
    labels, counts = components(~prediction, 1)
    most = int(counts.max())
    flat = labels.flatten(1)
    size = torch.zeros(len(flat), most + 1, dtype=torch.int64, device=flat.device)
    inside = size.clone().scatter_add_(1, flat, truth.flatten(1).long())
    size.scatter_add_(1, flat, torch.ones_like(flat))
    wrong = 2 * inside > size
    for line in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        wrong.scatter_(1, line, False)
    wrong[:, 0] = False
    return wrong.sum(1)


def distinct(labels: Int[Tensor, "b y x"]) -> Int[Tensor, "b"]:
    """How many positive labels occur on each image."""
    seen = torch.zeros(len(labels), int(labels.max()) + 1, dtype=torch.bool, device=labels.device)
    return seen.scatter_(1, labels.flatten(1), True)[:, 1:].sum(1)


def boundary_f(
    prediction: Bool[Tensor, "b y x"], truth: Bool[Tensor, "b y x"], tolerance: float = 2.0
) -> Float[Tensor, "b"]:
    """F = 2PR / (P + R) of boundaries: P the share of the predicted boundary within `tolerance` pixels of the true one,
    R the share of the true one within that distance of the predicted one; 1 where neither has a boundary.

    A boundary are the foreground pixels with a background neighbour (of 4). Source: D. Martin, C. Fowlkes and J. Malik,
    Learning to detect natural image boundaries, PAMI 2004; G. Csurka et al., BMVC 2013.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    check_masks("boundary_f", prediction, truth)
    check_numbers("boundary_f", "non-negative", tolerance=tolerance)

    found = []
    for p, t in zip(prediction.cpu().numpy(), truth.cpu().numpy(), strict=True):
        edges: list[Any] = [m ^ binary_erosion(m, border_value=1) for m in (p, t)]
        if not edges[0].any() or not edges[1].any():
            found.append(float(not edges[0].any() and not edges[1].any()))
            continue
        distances: list[Any] = [distance_transform_edt(~e) for e in edges]
        near = [d <= tolerance for d in distances]
        P, R = (edges[0] & near[1]).sum() / edges[0].sum(), (edges[1] & near[0]).sum() / edges[1].sum()
        found.append(float(2 * P * R / (P + R)) if P + R else 0.0)
    return torch.tensor(found, dtype=torch.float64, device=prediction.device)


def object_f1(
    prediction: Int[Tensor, "b y x"], truth: Int[Tensor, "b y x"], overlap: float = 0.5
) -> Float[Tensor, "b"]:
    """F1 = 2 TP / (objects predicted + objects there); TP counts pairs whose Jaccard index exceeds `overlap` ≥ 1/2, by
    which no object can be in two. 1 where there are none at all. Source: J. Caicedo et al., Nature Methods 16, 2019."""
    check_numbers("object_f1", "finite", overlap=overlap)
    if not 0.5 <= overlap < 1:
        refuse("object_f1", "overlap", "at least 1/2 and less than 1", overlap)
    check_labels("object_f1", prediction=prediction, truth=truth)
    if prediction.shape != truth.shape:
        shapes = f"{tuple(prediction.shape)} and {tuple(truth.shape)}"
        raise ValueError(f"`object_f1` compares labels of one shape; got {shapes}.")
    found = []
    for p, t in zip(prediction.flatten(1), truth.flatten(1), strict=True):
        p, t = (torch.unique(v, return_inverse=True) for v in (p, t))
        (names, p), (others, t) = p, t
        table = torch.bincount(p * len(others) + t, minlength=len(names) * len(others)).view(len(names), len(others))
        union = table.sum(1, keepdim=True) + table.sum(0, keepdim=True) - table
        hit = (table > overlap * union) & (names != 0)[:, None] & (others != 0)
        objects = int((names != 0).sum() + (others != 0).sum())
        found.append(2 * int(hit.sum()) / objects if objects else 1.0)
    return torch.tensor(found, dtype=torch.float64, device=prediction.device)


def measures(prediction: Bool[Tensor, "b y x"], labels: Int[Tensor, "b y x"]) -> dict[str, float]:
    """All of the above against true labels, means over images: "jaccard", "pooled", "false", "holes", "boundary", and
    "objects", the components of the prediction against the labels."""
    check_labels("measures", labels=labels)
    truth = labels > 0
    return {
        "jaccard": float(jaccard(prediction, truth).mean()),
        "pooled": pooled_jaccard(prediction, truth),
        "false": float(false_components(prediction, truth).double().mean()),
        "holes": float(holes(prediction, truth).double().mean()),
        "boundary": float(boundary_f(prediction, truth).mean()),
        "objects": float(object_f1(components(prediction, 2)[0], labels).mean()),
    }
