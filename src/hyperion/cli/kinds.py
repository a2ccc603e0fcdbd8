"""The kinds of things that `get` and `delete` know, by whatever people call them."""

from collections.abc import Iterable

import click

from hyperion.store.reading import suggest


def find_kind(word: str, known: Iterable[str]) -> str:
    """Return the kind that is meant: `Endpoint`, `endpoint` and `endpoints` are one. Raises `UsageError`.

    >>> find_kind("Endpoint", ["endpoints"])
    'endpoints'
    """
    kinds = list(known)
    plain = word.lower()
    for kind in kinds:
        if plain in (kind, kind.removesuffix("s")):
            return kind
    near = suggest(plain, kinds) or f" (known: {', '.join(kinds)})"
    raise click.UsageError(f'unknown kind "{word}"{near}')
