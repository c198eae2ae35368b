"""Values that most arguments do not accept, and calls with each of them."""

import random
from collections.abc import Callable, Iterable
from typing import Any

import mindspore as ms
import numpy as np

from msg_ms import UserError

LONGEST = 700  # characters of a message


class Hostile:
    """An object whose conversions fail."""

    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __len__ = __iter__ = __bool__ = __int__ = __float__ = __fspath__ = __array__ = __eq__ = __repr__
    __hash__ = object.__hash__


VALUES = (
    *(None, "x", "", "\0", b"x", 1.5, -1, 0, 10**12, True, float("nan"), [], [-1], [1, "a"], (0, 0), {}, {"a": 1}),
    *(object(), Hostile(), Exception, lambda: 0, np.zeros(3), np.array("x"), np.int64(-3), ms.Tensor([1.0]), [[]]),
)


def random_value(draws: random.Random, depth: int = 0) -> Any:
    """Return a value of a random kind, lists and dictionaries of such values among them."""
    kinds = [
        lambda: draws.choice(VALUES),
        lambda: draws.choice((2**31, 2**63, -(2**63), 2**200, 1e-310, 1e308, float("inf"), 1j, np.float16("inf"))),
        lambda: draws.randint(-3, 300),
        lambda: draws.uniform(-2, 2),
        lambda: "".join(draws.choice("ab*?[./~\0\n\ud800é") for _ in range(draws.randint(0, 9))),
        lambda: np.array(draws.choice((1, 0.5, "x", None, b"y")), object if draws.random() < 0.3 else None),
        lambda: np.zeros((2,) * draws.randint(0, 4), draws.choice((np.float32, np.uint8, np.complex64, bool))),
        lambda: ms.Tensor(np.zeros((1,) * draws.randint(0, 4), draws.choice((np.float32, np.int32)))),
        lambda: range(draws.randint(0, 5)),
    ]
    if depth < 2:
        several = [random_value(draws, depth + 1) for _ in range(draws.randint(0, 4))]
        kinds += [lambda: several, lambda: tuple(several), lambda: dict(enumerate(several))]
    return draws.choice(kinds)()


def try_values(call: Callable, arguments: dict[str, Any], names: Iterable[str], values: Iterable[Any] = VALUES):
    """Call with every value for every name in turn.

    Returns:
        How many calls were refused by a ``UserError`` of one line, and the failures: other errors and longer texts.
    """
    refused, failures, values = 0, [], list(values)
    for name in names:
        for number, value in enumerate(values):
            try:
                call(**{**arguments, name: value})
            except UserError as error:
                refused += 1
                text = str(error)
                breaks = isinstance(value, str) and "\n" in value  # as the names of files may
                if not text or ("\n" in text and not breaks) or len(text) > LONGEST:
                    failures.append(f"{name}, value {number}, a {type(value).__name__}: its message is {text!r}")
            except Exception as error:
                failures.append(f"{name}, value {number}, a {type(value).__name__}: {type(error).__name__}: {error}")
    return refused, failures
