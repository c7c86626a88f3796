"""Shape annotations are executed: jaxtyping checks every annotated call of the packages through beartype."""

from jaxtyping import install_import_hook

import tests.typechecker

install_import_hook(["fem", "solvers"], f"{tests.typechecker.__name__}.check")
