"""Answers that say how wrong they are: certificates of cheap predictions for a family of diffusion problems.

    −∇·(ν(ω) ∇u) = 0 in the unit square,    u = 1 on the left, u = 0 on the right,    no flux elsewhere

with ν from the series of Cho et al. (2021, eq. 14), whose contrast reaches 10⁵, interpolated between nodes. Each answer
(u = 1 − x, a reduced basis, the same corrected by `predict`) gets a certificate: its distance from the discrete
minimiser u_h, for the cost of a few multigrid cycles, and a guaranteed bound of its distance from the exact solution.
Claims: the certificate is never above the true distance and at most 15 % below (most for what was iterated
on); the bound is never below the distance from a reference on a grid four times as fine; `predict` meets its tolerance.
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from examples.command_line import folder, markdown, run, save, write
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, plot, unit_square, write_vtk
from solvers import ExponentialSeries, ReducedBasis, certify, minimize, predict

FIGURE = (-0.26, -0.77, -0.37, -0.92)  # ω of the paper's figure 3
HEAD = ("answer", "relative L2", "relative energy error", "certificate / true", "bound / true", "cycles")


def density(x: Tensor, u: Tensor, grad_u: Tensor, nu: Tensor) -> Tensor:
    return 0.5 * nu * grad_u.square().sum(-1)


def problem(
    cells: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> tuple[FunctionSpace, Energy, Energy]:
    """The space, the energy, and the energy without boundary values, half the square of the norm."""
    V = FunctionSpace(unit_square(cells, dtype=dtype, device=device), Lagrange(1))
    return V, Energy(V, density, Dirichlet(V, {"left": 1.0, "right": 0.0})), Energy(V, density)


def main(
    cells: int = 64, items: int = 32, snapshots: int = 33, functions: int = 8, tol: float = 1e-4, out: str | None = None
) -> dict[str, float]:
    """Certify, correct, and compare with the truth.

    Args:
        cells: cells in each direction
        items: fields ν that no answer was made for, the paper's first
        snapshots: solutions that the reduced basis is made of
        functions: of the reduced basis
        tol: relative error in the energy norm that `predict` is asked for
        out: folder for picture, table and VTK file; nothing is written without it

    Returns:
        For each answer "… error" (mean relative error in the energy norm), "… lowest" and "… highest" (certificate over
        true distance), "… bound" (lowest ratio of bound and distance from the reference), and "worst" (largest relative
        error of `predict`).
    """
    V, energy, norm = problem(cells)
    fine, fine_energy, fine_norm = problem(4 * cells)
    series, x, finer = ExponentialSeries(), V.dof_coordinates, fine.dof_coordinates
    omega = torch.cat([torch.tensor([FIGURE], dtype=V.dtype), series.sample(items - 1, seed=1)])
    nu = series(omega, x)
    params, fine_params = (V.function(nu),), (fine.function(V.evaluate(nu, finer)),)
    u, reference = minimize(energy, params).value, minimize(fine_energy, fine_params).value

    def size(v: Tensor) -> Tensor:
        return (2 * norm(v, *params)).clamp(min=0).sqrt()

    basis = ReducedBasis.of_snapshots(energy, (V.function(series(series.sample(snapshots, seed=2), x)),), functions)
    reduced = basis(params)
    corrected = predict(lambda image: image, energy, V.to_grid(reduced), params, tol)
    answers = {
        "u = 1 − x": (1 - x[:, 0]).expand_as(u),
        f"reduced basis of {functions}": reduced,
        f"predict to {tol:.0e}": corrected.value,
    }
    figures, rows, certificates = {}, [], {}
    for name, v in answers.items():
        found = certificates[name] = certify(energy, v, params)
        true = size(v - u)
        exact = (2 * fine_norm(V.evaluate(v, finer) - reference, *fine_params)).sqrt()
        bound = found.upper_bound
        assert bound is not None
        ratio, above, relative = found.energy_error / true, bound / exact, true / size(u)
        distance = (v - u).norm(dim=-1) / u.norm(dim=-1)
        figures |= {f"{name} error": float(relative.mean()), f"{name} bound": float(above.min())}
        figures |= {f"{name} lowest": float(ratio.min()), f"{name} highest": float(ratio.max())}
        count = f"{int(corrected.cycles.max())}" if v is corrected.value else "0"
        spans = (f"{ratio.min():.3f} to {ratio.max():.3f}", f"{above.min():.2f} to {above.max():.2f}")
        rows.append((name, f"{distance.mean():.1e}", f"{relative.mean():.1e}", *spans, count))
    figures["worst"] = float((size(corrected.value - u) / size(u)).max())
    text = markdown(HEAD, rows)
    print(text)
    if out is not None:
        write(text, out, "certificate.md")
        name = f"reduced basis of {functions}"
        indicator = certificates[name].indicator[0]
        figure, axes = plt.subplots(1, 4, figsize=(15, 3.2), layout="constrained")
        drawn = {"log₁₀ ν": nu[0].log10(), "reduced basis": reduced[0], "its error": (reduced - u)[0].abs()}
        for ax, (title, field) in zip(axes, drawn.items(), strict=False):
            plot(V, field, ax).set_title(title)
        image = axes[3].imshow(
            indicator.reshape(cells, cells).numpy(), origin="lower", extent=(0, 1, 0, 1), cmap="viridis"
        )
        axes[3].set_title("certified error by cell")
        figure.colorbar(image, ax=axes[3])
        save(figure, out, "certificate.png")
        cell_data = {"certified_error": indicator}
        bound = certificates[name].bound_indicator
        if bound is not None:
            cell_data["bound_of_true_error"] = bound[0]
        fields = {"nu": nu[0], "reduced_basis": reduced[0], "minimiser": u[0]}
        print(f"wrote {write_vtk(folder(out) / 'certificate.vtu', V, fields, cell_data)}")
    return figures


if __name__ == "__main__":
    run(main)
