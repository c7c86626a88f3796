"""Weights of networks in files: safetensors, which hold numbers and nothing that could run.

The tensors keep their names and types. Beside them stands what the network looked like when it was saved, so that a
network of another architecture is told by its first difference.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fem.support.files import put

FORMAT = "ritz network 1"


def save_network(network: nn.Module, path: str | Path, about: str = "") -> Path:
    """Write a network's weights as a safetensors file, whole or not at all.

    Args:
        about: kept in the file, for people: the command that made it, say.
    """
    path, library = Path(path), safetensors()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors(network).items()}
    facts = {"format": FORMAT, "network": repr(network), "about": about}
    put(path, lambda temporary: temporary.write_bytes(library.torch.save(state, facts)))
    return path


def load_network(network: nn.Module, path: str | Path) -> str:
    """Fill a network with the weights of a file, and return what the file says `about` itself.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged or of another kind (pickles are refused: they can run code), or of a network
            with other weights; the network stays as it was.
    """
    path, library = Path(path), safetensors()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        with library.safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except library.SafetensorError as error:
        with path.open("rb") as file:
            head = file.read(2)
        pickled = head == b"PK" or head[:1] == b"\x80"
        kind = "a pickle (`torch.save`), which can run code and is refused" if pickled else "damaged or of another kind"
        raise ValueError(f"{path} is {kind}; a safetensors file is needed, such as `save_network` writes.") from error
    load_state(network, state, path)
    return facts.get("about", "")


def safetensors() -> Any:
    """The library, or where to find it."""
    try:
        import_module("safetensors.torch")
    except ImportError as error:
        raise ImportError("weights in files need safetensors: pip install 'ritz[train]'.", name=error.name) from error
    return import_module("safetensors")


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network without what some libraries put beside it."""
    return {name: entry for name, entry in network.state_dict().items() if isinstance(entry, Tensor)}


def load_state(network: nn.Module, state: Mapping[str, Any], path: Path, check_only: bool = False) -> None:
    """Fill a network with weights once all of them are known to fit."""
    own = tensors(network)
    for name in [*own, *state]:
        there, here = (shape(x.get(name)) for x in (state, own))
        if there != here:
            raise ValueError(
                f"{path} is of another architecture: it has {there} for `{name}`, where this network has {here}. Make "
                "the network as it was when the file was written."
            )
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{path} holds values that are not finite, in `{name}`.")
    if not check_only:
        network.load_state_dict(state)


def shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"a tensor {tuple(tensor.shape)}"
