"""Option types that several commands share."""

from __future__ import annotations

import click

__all__ = ["BRANCHES", "THREADS", "Branches"]

Branches = int | tuple[int, ...] | None


class _BranchesType(click.ParamType):  # type: ignore[type-arg]
    """``2`` the first two, ``0,3,5`` those, ``3,`` that one alone, ``all``."""

    name = "branches"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Branches:
        if value is None or not isinstance(value, str):
            return value  # type: ignore[return-value]
        text = value.strip()
        if text == "all":
            return None
        try:
            if "," in text:
                return tuple(int(piece) for piece in text.removesuffix(",").split(","))
            return int(text)
        except ValueError:
            self.fail(
                f"{value!r} is not a choice of branches; write a count (2), indexes (0,3,5), one index (3,) or all",
                param,
                ctx,
            )


BRANCHES = _BranchesType()


class _ThreadsType(click.ParamType):  # type: ignore[type-arg]
    """``1,2,4``: thread counts."""

    name = "threads"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not isinstance(value, str):
            return value  # type: ignore[return-value]
        try:
            return tuple(int(piece) for piece in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of thread counts; write it as 1,2,4", param, ctx)


THREADS = _ThreadsType()
