"""Shape annotations are executed: jaxtyping checks every annotated call of the packages through beartype."""

from jaxtyping import install_import_hook

install_import_hook(["fem", "solvers"], "beartype.beartype")
