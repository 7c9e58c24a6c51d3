"""What a module is without its adaptation: tensors of a changed one as those of the unchanged."""

from __future__ import annotations

from torch import Tensor

from everlearn.base import InputError, Json
from everlearn.learners.neural.low_rank import merged, shared


def unchanged(tensors: dict[str, Tensor], said: Json) -> dict[str, Tensor]:
    """Tensors, by the names under which they are stored, as the unchanged module has them.

    Args:
        tensors: of the changed module.
        said: what `Change.to_json` said of it; None where nothing was changed.

    Raises:
        InputError: this cannot be undone.
    """
    kind = None if said is None else said["kind"]
    if kind in (None, "freeze"):
        return tensors
    if kind == "lora":
        return merged(tensors, said["layers"], float(said["scale"]))
    if kind == "personal":
        return shared(tensors, said["layers"])
    if kind == "expand":
        more = {name.split(".")[1] for name in tensors if name.startswith("expand.")}
        if more:
            raise InputError(
                f"the state has {len(more) + 1} columns, which are no one module: keep Expand in"
                " the strategy, or begin with start='scratch'"
            )
        return tensors
    raise InputError(f"the state is of a module that was changed by {kind!r}, which is not known")
