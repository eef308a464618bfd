"""Named tuples, made as fast as tuples."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

NamedTupleType = TypeVar("NamedTupleType", bound=tuple[Any, ...])


def maker(kind: type[NamedTupleType]) -> Callable[[tuple[Any, ...]], NamedTupleType]:
    """Return what makes a named tuple of all its values, in order and in C.

    The generated constructor is Python code and takes about twice as long: too long where a run
    needs one for each stream. Nothing checks how many values there are.
    """
    return partial(tuple.__new__, kind)
