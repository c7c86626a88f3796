"""Calls that cannot work say what would: options of the layer, sizes, masks of another kind."""

from tests.wrong_calls import misunderstood

SETUP = """
from math import nan
import torch
from segmentation import *
mask = torch.zeros(1, 8, 8, dtype=torch.bool)
images, masks = torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool)
data = synthetic_nuclei(2, (16, 16), objects=0)
net = torch.nn.Conv2d(1, 1, 1)
chance = torch.Generator()
"""

CALLS = {
    "PiecewiseConstant(threshold=nan)": r"`PiecewiseConstant\(threshold=\.\.\.\)` must be a finite number; got nan",
    "PiecewiseConstant(threshold='a')": "must be a finite number; got 'a'",
    "PiecewiseConstant(connectivity='corner')": r"`PiecewiseConstant\(connectivity=\.\.\.\)` must be \"face\", ",
    "PiecewiseConstant(connectivity=5)": "must be .*; got 5",
    "PiecewiseConstant(connectivity=8.0)": r"must be .*; got 8\.0",
    "PiecewiseConstant(background='kep')": r"\"keep\", \"components\" or \"single\"; got 'kep'\. Did you mean 'keep'\?",
    "PiecewiseConstant(min_size=-1)": "`PiecewiseConstant` takes min_size >= 0, .*; got -1, False and None",
    "PiecewiseConstant(min_size=2.5)": "takes min_size >= 0, .*; got 2.5",
    "PiecewiseConstant(keep_largest=0)": r"keep_largest >= 1 \(or None\); got 0, False and 0",
    "PiecewiseConstant(fill_holes='yes')": r"fill_holes >= 0 \(or True\) .*; got 0, 'yes'",
    "PiecewiseConstant(check_finite='no')": r"`PiecewiseConstant\(check_finite=\.\.\.\)` must be True or False",
    "PiecewiseConstant()(3.0)": r"`piecewise_constant\(x=\.\.\.\)` must be a tensor of images; got 3\.0",
    "PiecewiseConstant()(masks[:, None])": "takes floating-point images; got torch.bool",
    "piecewise_constant(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))": "floating-point images; got torch.uint8",
    "piecewise_constant(images, nan)": r"`piecewise_constant\(threshold=\.\.\.\)` must be a finite number",
    "label_components(mask, connectivity=True)": r"`connectivity` must be .*; got True",
    "label_components(mask, connectivity=8.0)": r"`connectivity` must be .*; got 8\.0",
    "label_components(mask.numpy())": r"`label_components\(mask=\.\.\.\)` must be a tensor .*; got a NumPy array",
    "clean_mask(mask, min_size=True)": "`clean_mask` takes min_size >= 0, .*; got True",
    "clean_mask(mask, keep_largest=1.5)": r"keep_largest >= 1 \(or None\); got 0, False and 1\.5",
    "clean_mask(mask, fill_holes=1.5)": "fill_holes >= 0 .*; got 0, 1.5",
    "clean_mask(mask[0])": r"`clean_mask` takes masks \(b, y, x\) or \(b, z, y, x\); got shape \(8, 8\)",
    "read_images(3)": r"`read_images\(folder=\.\.\.\)` must be a path; got 3",
    "read_images('nowhere', size=3)": r"`read_images\(size=\.\.\.\)` must be \(height, width\) in pixels; got 3",
    "split(images)": r"`split\(data=\.\.\.\)` must be an `ImageSet`; got a tensor",
    "split(data, share=nan)": r"`split\(share=\.\.\.\)` must be a finite number; got nan",
    "split(data, share=0.5, seed=1.5)": r"`split\(seed=\.\.\.\)` must be an integer; got 1\.5",
    "augment(images, masks, 3)": r"`augment\(generator=\.\.\.\)` must be a `torch.Generator\(\)`",
    "augment(images, masks, chance, crop=0)": r"`augment\(crop=\.\.\.\)` must be None or a positive integer; got 0",
    "augment(images, masks, chance, turn=nan)": r"`augment\(turn=\.\.\.\)` must be a non-negative number",
    "augment(images, mask, chance)": r"takes images \(b, c, y, x\) with masks \(b, y, x\); got shapes",
    "synthetic_nuclei(0)": r"`synthetic_nuclei\(count=\.\.\.\)` must be a positive integer; got 0",
    "synthetic_nuclei(1, size=32)": r"`synthetic_nuclei\(size=\.\.\.\)` must be \(height, width\) in pixels; got 32",
    "synthetic_nuclei(1, objects=-3)": r"`synthetic_nuclei\(objects=\.\.\.\)` must be a non-negative integer",
    "predict_masks(net, images, batch=0)": r"`predict_masks\(batch=\.\.\.\)` must be a positive integer; got 0",
    "predict_masks(net, images, layer=PiecewiseConstant)": "got the class `PiecewiseConstant`",
    "predict_masks(3, images)": r"`predict_masks\(network=\.\.\.\)` must be a network, an `nn.Module`; got 3",
    "train_segmentation(net, images, 1)": r"`train_segmentation\(data=\.\.\.\)` must be an `ImageSet`; got a tensor",
    "train_segmentation(net, data, 1.5)": r"`train_segmentation\(steps=\.\.\.\)` must be a positive integer; got 1\.5",
    "train_segmentation(net, data, 1, seed=1.5)": r"`train_segmentation\(seed=\.\.\.\)` must be an integer",
    "jaccard(images, images)": r"`jaccard\(prediction=\.\.\.\)` must be of bool; got torch.float32",
    "holes(masks.long(), masks)": r"`holes\(prediction=\.\.\.\)` must be of bool; got torch.int64",
    "jaccard(mask, mask[:, :3])": r"compares masks of one shape; got \(1, 8, 8\) and \(1, 3, 8\)",
    "boundary_f(mask, mask, tolerance=nan)": r"`boundary_f\(tolerance=\.\.\.\)` must be a non-negative number",
    "augment(images.byte(), masks, chance)": r"`augment\(images=\.\.\.\)` must be .* floating-point .*uint8",
    "augment(images, masks.byte(), chance)": r"`augment\(masks=\.\.\.\)` must be of bool; .*uint8\. `labels > 0`",
    "augment(images, 3, chance)": r"`augment\(masks=\.\.\.\)` must be a tensor of bool \(b, y, x\); got 3",
    "object_f1(mask, mask)": r"`object_f1\(prediction=\.\.\.\)` must be integers that number objects; got torch.bool",
    "object_f1(mask.long(), mask.float())": r"`object_f1\(truth=\.\.\.\)` .*; got torch.float32\. `label_components",
    "object_f1(mask.long(), mask[:, :4].long())": r"compares labels of one shape; got \(1, 8, 8\) and \(1, 4, 8\)",
    "measures(mask, mask)": r"`measures\(labels=\.\.\.\)` must be integers that number objects; got torch.bool",
    "object_f1(mask.long(), mask.long(), overlap=0.2)": r"`object_f1\(overlap=\.\.\.\)` must be at least 1/2 and less",
}


def test_what_is_wrong_is_told() -> None:
    assert misunderstood(SETUP, CALLS) == {}
