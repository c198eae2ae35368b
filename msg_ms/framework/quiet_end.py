"""A workaround for the messages of MindSpore's Cells at the end of a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindspore import nn


def quiet_destructor(destroy: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a destructor that does nothing once Python has cleared the module in which ``destroy`` was written.

    Args:
        destroy: A function ``__del__``.
    """
    variables = destroy.__globals__
    needed = tuple(name for name in destroy.__code__.co_names if variables.get(name) is not None)

    # The defaults keep the values: this module may be cleared, too.
    def __del__(self: Any, destroy=destroy, variables=variables, needed=needed) -> None:
        for name in needed:
            if variables.get(name) is None:
                return
        destroy(self)

    return __del__


def end_quietly() -> None:
    """Let Cells that live until the end of the process go without a message.

    Python then sets the variables of modules to None one after the other. MindSpore's ``Cell.__del__`` uses variables
    of its module, so each such Cell prints "Exception ignored in Cell.__del__ ... 'NoneType' object has no attribute
    'total_instance_count'". Seen in MindSpore 2.10.0. There is nothing left to release by then. Before, and in Cells of
    versions without ``__del__``, nothing changes; an error in a class's own ``__del__`` is still reported.
    """
    destroy = vars(nn.Cell).get("__del__")
    if destroy is not None and destroy.__module__ != __name__:
        nn.Cell.__del__ = quiet_destructor(destroy)
