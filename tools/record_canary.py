"""Record what `hyperion rollout watch` shows on a terminal while a canary goes live and another is halted.

    .venv/bin/python tools/record_canary.py [docs/img]

A platform is started in a home of its own, with versions of a real model, an endpoint and 300 requests/s in the
background. The command runs on a pseudo-terminal; every picture that it drew there is kept as it was, and some of them
become an SVG that goes from one to the next (`canary.svg`, `halted.svg`). About a minute and a half.
"""

import codecs
import fcntl
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402  the tests' parts are found from the root
from rich.text import Text  # noqa: E402

from tests.e2e.digit_models import write_versions  # noqa: E402
from tests.e2e.open_load import OpenLoad  # noqa: E402
from tests.e2e.releases import ENDPOINT, Platform  # noqa: E402

COLUMNS: Final = 116
RATE: Final = 300.0
HOLD_S: Final = 3.0
FRAME_S: Final = 2.0
TIMEOUT_S: Final = 90.0
FONT: Final = "Menlo, Consolas, 'DejaVu Sans Mono', monospace"
# Rich takes the last picture back, line by line, before it draws the next one.
_TAKEN_BACK: Final = re.compile(r"\r?(?:\x1b\[2K)?(?:\x1b\[1A\x1b\[2K)+|\x1b\[\?25[lh]")
_PART: Final = "\x00"


class Recorded(NamedTuple):
    """One picture: when it was drawn (s since the start), and its text with its colours."""

    at_s: float
    text: str


def main() -> None:
    """Record both and write them."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "img")
    with tempfile.TemporaryDirectory() as directory:
        rows = write_versions(Path(directory) / "models")
        platform = Platform(Path(directory))
        with platform.served as served:
            for number, name in enumerate(("v1", "equal", "raises"), 1):
                platform.push(Path(directory) / "models" / name, str(number))
            platform.apply({"model": f"{ENDPOINT}@1", "rollout": policy(), "batching": {"max_size": 16}})
            platform.wait_for(frozenset(("promoted",)), 60)
            with OpenLoad(served.port, ENDPOINT, rows, RATE):
                time.sleep(2.0)
                for version, name in (("2", "canary"), ("3", "halted")):
                    frames = record(platform, version)
                    picked = pick(frames)
                    (folder / f"{name}.svg").write_text(draw(picked, f"hyperion rollout watch {ENDPOINT}"))
                    print(f"{name}.svg: {len(picked)} of {len(frames)} pictures, {frames[-1].at_s:.0f} s")


def policy() -> dict[str, Any]:
    """Short steps, and everything that can halt."""
    steps = [{"percent": percent, "hold_s": HOLD_S, "min_requests": 20} for percent in (5, 25, 50)]
    return {"strategy": "canary", "steps": steps, "halt": {"drift": {"distance": 0.1}}}


def record(platform: Platform, version: str) -> list[Recorded]:
    """Deploy a version, run the command on a terminal until it ends, and return every picture that it drew."""
    platform.run("deploy", ENDPOINT, f"{ENDPOINT}@{version}")
    while platform.status()["to"] != version:
        time.sleep(0.05)
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    home = {"HYPERION_HOME": str(platform.served.home), "HYPERION_ADMIN_PORT": str(platform.served.admin_port)}
    environment = {**os.environ, **home, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = [sys.executable, "-m", "hyperion", "rollout", "watch", ENDPOINT]
    process = subprocess.Popen(  # noqa: S603  our own command line
        command, stdin=child, stdout=child, stderr=child, env=environment, cwd=ROOT
    )
    os.close(child)
    try:
        return read_frames(parent)
    finally:
        os.close(parent)
        process.terminate()
        process.wait(10)


def read_frames(terminal: int) -> list[Recorded]:
    """Read the terminal until the command has ended. A picture is what stands between two times of taking back."""
    started, seen, frames = time.monotonic(), "", []
    decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
    while time.monotonic() - started < TIMEOUT_S:
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # Linux says so where the other side has closed
            data = b""
        seen += decoder.decode(data)
        *whole, rest = _TAKEN_BACK.split(seen.replace("\r\n", "\n"))
        if not data:
            whole.append(rest)
        frames += [Recorded(time.monotonic() - started, text) for text in whole if text.strip()]
        if not data:
            return frames
        seen = rest
    raise TimeoutError(f"the rollout is not over after {TIMEOUT_S:.0f} s")


def pick(frames: Sequence[Recorded]) -> list[str]:
    """The last picture before each change of state or step, one now and then of what lasts long, and the end."""
    picked: list[Recorded] = []
    for before, after in itertools.pairwise(frames):
        if headline(before.text) != headline(after.text) or after.at_s - (picked[-1].at_s if picked else 0.0) > 9.0:
            picked.append(before)
    return [one.text for one in (*picked, frames[-1])]


def headline(text: str) -> str:
    """State and step: what makes two pictures differ for a reader."""
    return re.sub(r"\d+:\d\d.*", "", Text.from_ansi(text).plain.strip().split("\n")[0])


def draw(frames: Sequence[str], title: str) -> str:
    """One SVG that shows the pictures one after the other, and the last one alone where nothing may move."""
    height = max(text.count("\n") for text in frames) + 1
    parts = [export(text, f"f{number}", height) for number, text in enumerate(frames)]
    total = FRAME_S * (len(frames) + 1)  # the last one stays twice as long
    styles, bodies = [], []
    for number, (style, body) in enumerate(parts):
        start = 100 * number * FRAME_S / total
        end = 100 * (number + 1) * FRAME_S / total
        last = number == len(parts) - 1
        shown = f"{start:.3f}% {{ opacity: 1 }} " + ("" if last else f"{end:.3f}% {{ opacity: 0 }} ")
        hidden = "" if not number else "0% { opacity: 0 } "
        styles.append(f"{style}@keyframes k{number} {{ {hidden}{shown}}}")
        styles.append(f"#f{number} {{ opacity: {int(last)}; animation: k{number} {total:g}s step-end infinite }}")
        bodies.append(f'<g id="f{number}">{body}</g>')
    styles.append("@media (prefers-reduced-motion: reduce) { g { animation: none !important } }")
    frame = export(frames[-1], "x", height, whole=True)[1]
    width, tall, left, top = frame.split(_PART)[:4]
    return (
        f'<svg class="rich-terminal" viewBox="0 0 {width} {tall}" xmlns="http://www.w3.org/2000/svg">\n'
        f"<title>{title}</title>\n<style>\n" + "\n".join(styles) + "\n</style>\n"
        f'<rect width="{width}" height="{tall}" rx="8" fill="#16181d"/>\n'
        f'<text x="{left}" y="28" fill="#7f848e" style="font: 18px {FONT}">$ {title}</text>\n'
        f'<g transform="translate({left}, {top})">\n' + "\n".join(bodies) + "\n</g>\n</svg>\n"
    )


def export(text: str, name: str, height: int, *, whole: bool = False) -> tuple[str, str]:
    """Rich's own SVG of one picture: its styles, and its body (or the measures of the whole)."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(text.rstrip("\n")), end="")
    console.print("\n" * (height - text.rstrip("\n").count("\n") - 1), end="")
    body = _PART.join(("{width}", "{height}", "{terminal_x}", "{terminal_y}", "")) if whole else "{backgrounds}{matrix}"
    made = console.export_svg(unique_id=name, code_format="{styles}" + _PART + body)
    styles, _, rest = made.partition(_PART)
    rest = re.sub(r"<text[^>]*>\n</text>| clip-path=\"[^\"]*\"", "", rest)  # the ends of lines; nothing is too long
    font = f".{name}-matrix {{ font: 20px {FONT} }}\n"
    return font + styles + "\n", f'<g class="{name}-matrix">{rest}</g>' if not whole else rest


if __name__ == "__main__":
    main()
