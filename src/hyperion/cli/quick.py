"""The arguments of `serve`, read without click, whose import takes as long as a small model.

Knows the plain forms only. For anything else (help, abbreviations, mistakes) it gives up, and click, which is made from
the same table of settings, reads the line again and explains.
"""

from collections.abc import Sequence

from hyperion.cli.settings import SETTINGS

_FLAGS = {f"--{s.name}": (s.key, True) for s in SETTINGS if s.kind == "flag"} | {
    f"--{s.off_name or f'no-{s.name}'}": (s.key, False) for s in SETTINGS if s.kind == "flag"
}
_OPTIONS = {f"--{s.name}": s.key for s in SETTINGS if s.kind != "flag"}


def parse_serve(arguments: Sequence[str]) -> tuple[tuple[str, ...], dict[str, object]] | None:
    """Return the PATHs and what was given by key, or None where click must look at it.

    >>> parse_serve(["m.onnx", "--port", "80", "--no-grpc", "--host=::1"])
    (('m.onnx',), {'port': '80', 'grpc': False, 'host': '::1'})
    >>> parse_serve(["--help"]) is None, parse_serve(["--port"]) is None
    (True, True)
    """
    paths: list[str] = []
    given: dict[str, object] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            paths.append(argument)
        elif argument in _FLAGS:
            key, state = _FLAGS[argument]
            given[key] = state
        elif name in _OPTIONS:
            following = value if equals else next(rest, None)
            if following is None or (not equals and following.startswith("-")):
                return None
            given[_OPTIONS[name]] = following
        else:
            return None
    return tuple(paths), given
