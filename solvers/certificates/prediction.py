"""What a network says, certified, and corrected by cycles until it is good enough."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fem.forms.energy import Energy
from fem.forms.parameters import Parameter
from fem.space.space import FunctionSpace
from fem.support.checks import check_integers, check_kind, check_numbers
from fem.support.modes import outside_modes
from solvers.certificates.certificate import Certificate, Error
from solvers.operators.system import LinearMethod, Preconditioner
from solvers.surrogates.lift import answer, evaluating, nodal_values


@dataclass(frozen=True, eq=False)
class Prediction:
    """value: dofs "*b *shape" that meet the tolerance; certificate: of these; cycles: added after the network "*b".

    The certificate's `bracket` is what counts: see `Certificate.energy_error`.
    """

    value: Tensor
    certificate: Certificate
    cycles: Tensor

    def __repr__(self) -> str:
        cycles = f", cycles ≤ {int(self.cycles.max())}" if self.cycles.numel() else ""
        return f"Prediction(value {tuple(self.value.shape)}{cycles},\n  {self.certificate})"


@outside_modes
@torch.no_grad()
def predict(
    network: Callable[[Tensor], Tensor],
    energy: Energy,
    inputs: Tensor,
    params: Sequence[Parameter] = (),
    tol: float | None = 1e-6,
    method: Preconditioner | LinearMethod | None = None,
    max_cycles: int = 200,
) -> Prediction:
    """What a network says, certified, and corrected until its relative error in the energy norm is at most `tol`.

    Args:
        network: from images "b c *grid" to nodal values as images "b *grid", or "b 1 *grid" ("b c *grid" for vectors).
        inputs: what the network is given, in its own type.
        params: of the energy, as many items as inputs.
        tol: for ‖v − u_h‖ / ‖u_h‖; None leaves the network's answer as it is.
        max_cycles: give up there: the certificate says what was reached.

    Raises:
        ValueError: an output of the wrong shape or one that is not finite; see `certify`.
    """
    check_kind("predict", "energy", energy, Energy, "an `Energy`")
    check_kind("predict", "network", network, Callable, "a network, from images to images")
    check_kind("predict", "inputs", inputs, Tensor, "a tensor of images (b, c, *grid)")
    check_numbers("predict", "a fraction", optional=True, tol=tol)
    check_integers("predict", 0, max_cycles=max_cycles)
    V = energy.space
    if not isinstance(V, FunctionSpace):
        raise ValueError("`predict` takes an energy over one `FunctionSpace`.")
    with evaluating(network):
        image = answer(network, inputs)
    bad = ~image.isfinite().flatten(1).all(-1)
    if bool(bad.any()):
        raise ValueError(
            f"the network's answer to item {int(bad.nonzero()[0])} is not finite; are its inputs, and its weights?"
        )
    error = Error("predict", energy, nodal_values(V, image), params, method)
    cycles = torch.zeros(error.system.batch, dtype=torch.int64, device=V.device)
    if tol is not None:
        for _ in range(3):  # rounding and a better ‖u_h‖ may ask for a few more
            more = error.reduce(tol, max_cycles - int(cycles.max()) if cycles.numel() else 0)
            cycles += more
            if not bool(more.any()):
                break
    return Prediction(error.v, error.certificate(), cycles)
