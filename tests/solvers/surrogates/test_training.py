"""Training lowers the energy, draws problems by number, goes on after any break as if there had been none."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fem.support.compilation
from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_cube, unit_square
from fem.support.cache import Store
from solvers import (
    BoundedLift,
    DiffusionProblems,
    ExponentialSeries,
    GaussianField,
    UNet,
    load_network,
    train_surrogate,
)

pytest.importorskip("lightning")
from solvers.surrogates.training import logarithm
from tests.problems import diffusion

ROOT = Path(__file__).parents[3]


V = FunctionSpace(unit_square(8, dtype=torch.float32), Lagrange(1))
ENERGY = Energy(V, diffusion, Dirichlet(V, {"left": 1.0, "right": 0.0}))
PROBLEMS = DiffusionProblems(V, ExponentialSeries(bound=1.0))


def network(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    inner = UNet(width=4, depth=1, norm=None, nonlinearity=nn.GELU())
    return BoundedLift(nn.Sequential(nn.Dropout(dropout), inner), lambda x: 1 - x[..., 0])


def train(net, steps=8, batch=4, problems: Any = PROBLEMS, energy=ENERGY, **options):
    return train_surrogate(net, energy, problems, steps, batch, **{"every": 3, "progress": False, **options})


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_networks_learn_from_the_energy_alone():
    done = train(network(), 300, 8, held_out=DiffusionProblems(V, PROBLEMS.family, seed=1)(0, 16), every=100)
    assert (done.steps, done.samples, len(done.history)) == (300, 2400, 3)
    first, last = done.history[0], done.history[-1]
    assert last["l2"] < 0.5 * first["l2"]
    assert last["l2"] <= last["l2_max"] < 0.1
    assert 0 < last["energy_gap"] < first["energy_gap"]
    assert last["samples_per_second"] > 0


def test_every_energy_counts_in_units_of_its_own():
    energies = torch.tensor([1e-3, -2.0, 5e4, 0.0], requires_grad=True)
    values = logarithm(energies)
    values[:3].sum().backward()
    torch.testing.assert_close(values[:3].detach(), energies.detach()[:3].sign() * energies.detach()[:3].abs().log())
    torch.testing.assert_close(energies.grad[:3], 1 / energies.detach()[:3].abs())
    assert float(values[3].detach()) == 0


def test_problems_are_drawn_by_number():
    drawn = []

    def problems(start, count):
        drawn.append((start, count))
        return PROBLEMS(start, count)

    train(network(), 5, 4, problems)
    assert drawn == [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4)]


def test_a_broken_run_goes_on_as_if_nothing_had_happened(tmp_path):
    """To the last bit: weights, optimiser, schedule, position, and the random numbers of dropout."""

    def broken_at(number):
        def problems(start, count):
            if start == 4 * number:
                raise KeyError("a power cut")
            return PROBLEMS(start, count)

        return problems

    whole = train(network(dropout=0.3), 11, folder=tmp_path / "whole")
    for number in (2, 5, 10):  # before the first checkpoint, and between others
        with pytest.raises(KeyError, match="a power cut"):
            train(network(dropout=0.3), 11, problems=broken_at(number), folder=tmp_path / "broken")
        torch.manual_seed(number)
        assert (tmp_path / "broken" / "last.ckpt").exists() == (number > 3)
    done = train(network(dropout=0.3), 11, folder=tmp_path / "broken")
    assert equal(done.network, whole.network)
    assert [h["step"] for h in done.history] == [h["step"] for h in whole.history] == [3, 6, 9, 11]
    assert [h["loss"] for h in done.history] == [h["loss"] for h in whole.history]
    other = network(seed=1, dropout=0.3)
    assert load_network(other, tmp_path / "broken" / "network.safetensors") == ""
    assert equal(other, whole.network)
    (tmp_path / "broken" / ".last.123.ckpt").write_bytes(b"half a checkpoint")
    again = train(network(seed=2, dropout=0.3), 11, folder=tmp_path / "broken")  # nothing is left to do
    assert equal(again.network, whole.network)
    assert not list((tmp_path / "broken").glob(".*"))


def test_runs_leave_logs(tmp_path):
    train(network(), 8, folder=tmp_path, held_out=PROBLEMS(100, 2))
    (metrics,) = tmp_path.glob("logs/*/metrics.csv")
    assert {"loss", "l2", "l2_max", "energy_gap", "samples_per_second"} <= set(
        metrics.read_text().split("\n")[0].split(",")
    )
    pytest.importorskip("tensorboard")
    assert list(tmp_path.glob("logs/*/events.out.tfevents*"))


def test_energies_stay_precise_where_networks_do_not():
    W = FunctionSpace(unit_square(8), Lagrange(1))
    seen = set()

    def density(x, u, g, nu):
        seen.add((u.dtype, torch.is_autocast_enabled("cpu")))
        return diffusion(x, u, g, nu)

    energy = Energy(W, density, Dirichlet(W, {"left": 1.0, "right": 0.0}))
    problems = DiffusionProblems(W, PROBLEMS.family)
    inner: Any = network()
    kinds = set()
    inner.network[1].down[0][0].register_forward_hook(lambda module, given, out: kinds.add(out.dtype))
    done = train(inner, 2, 4, problems, energy, precision="bf16-mixed")
    assert kinds == {torch.bfloat16}
    assert seen == {(torch.float64, False)}
    assert all(p.dtype == torch.float32 for p in done.network.parameters())


@pytest.mark.parametrize("loss", ["mean", lambda energies: energies.square().mean()])
def test_other_losses_and_optimisers(loss):
    done = train(network(), 3, loss=loss, optimizer=lambda named: torch.optim.AdamW([p for _, p in named], 1e-3))
    assert not equal(done.network, network())


def test_loads_vectors_and_three_dimensions():
    C = FunctionSpace(unit_cube(4, dtype=torch.float32), Lagrange(1))
    energy = Energy(C, lambda x, u, g, nu, f: diffusion(x, u, g, nu) - f * u, Dirichlet(C, {"boundary": 0.0}))
    problems = DiffusionProblems(C, GaussianField(3, modes=3), GaussianField(3, modes=3))
    done = train(UNet(2, width=4, depth=1, dim=3), 12, 4, problems, energy, held_out=problems(99, 2))
    assert done.history[-1]["energy_gap"] < done.history[0]["energy_gap"]
    W = FunctionSpace(unit_square(8, dtype=torch.float32), Lagrange(1), components=2)
    energy = Energy(W, lambda x, u, g: 0.5 * g.square().sum((-1, -2)) - u.sum(-1), Dirichlet(W, {"boundary": 0.0}))
    done = train(UNet(1, 2, width=4), 3, 2, lambda start, count: (torch.ones(count, 1, 9, 9), ()), energy, loss="mean")
    assert done.steps == 3


def test_networks_in_evaluation_return_to_it_and_their_parts_rest():
    seen = []
    net: Any = network(dropout=0.1)
    net.network[0].register_forward_hook(lambda module, given, out: seen.append(module.training))
    for resting in (False, True):  # a part of the network
        net.train()
        net.network[0].train(not resting)
        train(net, 4, every=2, held_out=PROBLEMS(99, 2))
        assert seen == [not resting] * 2 + [False] + [not resting] * 2 + [False]
        assert (net.training, net.network[0].training, net.network[1].training) == (True, not resting, True)
        seen.clear()
    train(net.eval(), 1)
    assert seen == [True]
    assert not any(m.training for m in net.modules())


def test_without_a_compiler_networks_learn_as_they_are(monkeypatch):
    def compile(network):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(fem.support.compilation, "_missing", Store("missing", 1))
    with pytest.warns(UserWarning, match=r"no working C\+\+ compiler was found. Install g\+\+ or clang"):
        fast = train(network(), 3, compile=True).network
    monkeypatch.setattr(fem.support.compilation, "_missing", Store("missing", 1))
    assert equal(fast, train(network(), 3).network)


def test_what_cannot_be_trained(tmp_path):
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"steps": 0}, r"`train_surrogate\(steps=...\)` must be a positive integer; got 0"),
        ({"batch": 3, "devices": 2}, "2 processes cannot share a batch of 3 evenly"),
        ({"loss": "square"}, 'must be "log", "mean" or a function; got \'square\''),
    )
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            train(network(), **options)
    with pytest.raises(ValueError, match=r"takes images \(b, 2, y, x\); got a tensor of shape \(4, 1, 9, 9\)"):
        train(UNet(2, width=4), 1)
    small = DiffusionProblems(FunctionSpace(unit_square(4, dtype=torch.float32), Lagrange(1)), PROBLEMS.family)
    with pytest.raises(ValueError, match="`from_grid` needs an image of shape"):
        train(network(), 1, problems=small)
    with pytest.raises(ValueError, match="at step 0 the loss is nan: a smaller lr may help"):
        train(network(), 1, loss=lambda energies: (energies - energies - 1).log().mean())
    with pytest.raises(ValueError, match="holds nan"):
        train(
            network(), 1, problems=lambda start, count: (torch.full((count, 1, 9, 9), torch.nan), PROBLEMS(0, count)[1])
        )


def test_weights_that_are_no_numbers_are_not_stored(tmp_path):
    def kink(energies):  # from the sixth step on 0, with a derivative of 0 times infinity
        calls.append(None)
        return energies.mean() if len(calls) < 6 else (energies - energies.detach()).abs().sqrt().mean()

    calls = []
    net = network().eval()
    with pytest.raises(ValueError, match="at step 6 the sum of all weights is nan: a smaller lr may help"):
        train(net, 9, loss=kink, folder=tmp_path, clip=0.0, every=3, optimizer=descent)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not net.training


def descent(named):
    return torch.optim.SGD([p for _, p in named], 1e-3)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "fem.support.training.loop")
    with pytest.raises(ImportError, match=r"training needs lightning.*: pip install 'ritz\[train\]'"):
        train(network(), 1)


def test_folders_of_other_runs_are_left_alone(tmp_path):
    train(network(), 3, folder=tmp_path)
    path = tmp_path / "last.ckpt"
    content = path.read_bytes()
    with pytest.raises(ValueError, match="of another run: steps=3 there, 4 here"):
        train(network(), 4, folder=tmp_path)
    with pytest.raises(ValueError, match="holds a run already"):
        train(network(), 3, folder=tmp_path, resume=False)
    wider = BoundedLift(nn.Sequential(nn.Dropout(0), UNet(width=6, depth=1, norm=None)), lambda x: 1 - x[..., 0])
    with pytest.raises(
        ValueError, match=r"of another architecture: it has a tensor \(4, 3, 3, 3\) for `network.1.down.0.0"
    ):
        train(wider, 3, folder=tmp_path)
    assert path.read_bytes() == content
    stored = torch.load(path, weights_only=True)
    torch.save(stored | {"code": Path("anything that a pickle could make")}, path)
    for damaged in (path.read_bytes(), content[: len(content) // 2], b"", b"nonsense"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged, or no checkpoint of a training"):
            train(network(), 3, folder=tmp_path)
        assert path.read_bytes() == damaged


SCRIPT = """
    import sys, torch
    from torch import nn
    from fem import Dirichlet, Energy, FunctionSpace, Lagrange, unit_square
    from solvers import DiffusionProblems, ExponentialSeries, UNet, train_surrogate
    from tests.problems import diffusion

    if __name__ == "__main__":
        folder, devices, steps, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
        torch.set_num_threads(1)
        torch.manual_seed(0)
        V = FunctionSpace(unit_square(16), Lagrange(1))
        energy = Energy(V, diffusion, Dirichlet(V, {"left": 1.0, "right": 0.0}))
        problems = DiffusionProblems(V, ExponentialSeries())
        net = UNet(width=4, depth=2).double()
        options = {"devices": devices, "compile": how == "compile", "progress": False}
        train_surrogate(net, energy, problems, steps, 8, folder=folder, every=5, **options)
"""


@pytest.fixture
def script(tmp_path):
    """A program that trains, with its arguments: folder, devices, steps, and whether to compile."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RITZ_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def start(folder, devices, steps, how="never"):
        command = [sys.executable, str(path), str(tmp_path / folder), str(devices), str(steps), how]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


def finished(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def weights(folder):
    net = UNet(width=4, depth=2).double()
    load_network(net, folder / "network.safetensors")
    return net.state_dict()


@pytest.mark.slow
def test_killed_three_times_the_end_is_the_same(script, tmp_path):
    finished(script("whole", 1, 200))
    generator = torch.Generator().manual_seed(int(time.time()))
    checkpoint, position = tmp_path / "killed" / "last.ckpt", 0
    for _ in range(3):
        process = script("killed", 1, 200)
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > stamp):  # until it is at work
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        time.sleep(0.5 * float(torch.rand((), generator=generator)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before, position = position, torch.load(checkpoint, weights_only=True)["global_step"]
        assert position > before
        assert position % 5 == 0
    finished(script("killed", 1, 200))
    found, wanted = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.slow
def test_two_processes_are_one(script, tmp_path):
    for folder, devices in (("one", 1), ("two", 2)):
        finished(script(folder, devices, 12))
    found, wanted = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_compiled_networks_learn_the_same(script, tmp_path):
    """In processes of their own: compilers do not see through the checks of shapes that tests switch on."""
    for folder, how in (("plain", "never"), ("fast", "compile")):
        finished(script(folder, 1, 3, how))
    found, wanted = weights(tmp_path / "fast"), weights(tmp_path / "plain")
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-12)
