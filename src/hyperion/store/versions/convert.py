"""Turn a pickled scikit-learn model into a format that runs no code when it is loaded: skops or ONNX.

Called by `hyperion model convert`. The pickle is opened in a process of its own (`convert_child`), never here: with an
empty environment, in an empty directory, with limits, and without a network where the kernel allows that. That is a
fence against accidents, not against somebody who means harm, so it needs the operator's word.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from hyperion.schema.errors import MissingExtra, ModelRefused
from hyperion.store.reading import read_head
from hyperion.store.repositories.formats import format_of

Form = Literal["skops", "onnx"]
MEMORY_BYTES = 8 << 30
TIMEOUT_S = 300
ANSWER_BYTES = 1 << 20
# float32 of ONNX beside float64 of scikit-learn; labels must all be the same.
TOLERANCES: dict[str, float] = {"skops": 1e-12, "onnx": 1e-3}
_EXTRAS = {"skops": "sklearn", "sklearn": "sklearn", "joblib": "sklearn", "skl2onnx": "examples", "onnx": "examples"}


class Converted(Struct, frozen=True):
    """What came out: the class of the model, the methods that were compared on `rows` random rows, the largest relative
    difference (for labels the share that differs), the types that skops does not list as safe (the runner has its own
    list), library versions, and whether the process was cut off from the network."""

    kind: str
    compared: tuple[str, ...]
    rows: int
    difference: float
    unsafe: tuple[str, ...] = ()
    libraries: dict[str, str] = {}
    network: bool = False


class _Answer(Struct, frozen=True):
    error: str = ""
    missing: str = ""
    kind: str = ""
    compared: tuple[str, ...] = ()
    rows: int = 0
    difference: float = 0.0
    unsafe: tuple[str, ...] = ()
    libraries: dict[str, str] = {}
    network: bool = False


def convert(
    source: Path,
    target: Path,
    form: Form,
    *,
    trust_pickle: bool,
    memory_bytes: int = MEMORY_BYTES,
    timeout_s: int = TIMEOUT_S,
) -> Converted:
    """Writes to `target` the model of the pickle or joblib file `source` as `form`, and returns what was compared.

    `target` must not exist yet, and does not unless the result predicts as the original. Raises ModelRefused: not
    trusted, not a pickle of an estimator, not to be converted, too slow or too large, other predictions.
    """
    known = format_of(source)
    if known.format != "sklearn" or not known.executable:
        raise ModelRefused(f"{source.name}: expected a pickle or joblib file of scikit-learn (.pkl, .pickle, .joblib)")
    if not trust_pickle:
        raise ModelRefused(
            f"{source.name}: to convert a pickle it has to be opened, which runs whatever code lies in it. If you "
            "trust who made it, say so with --trust-pickle"
        )
    if target.suffix != f".{form}":
        raise ModelRefused(f"{target.name}: expected a name that ends with .{form}")
    if target.exists():
        raise ModelRefused(f"{target.name}: is there already; remove it, or choose another name")
    with tempfile.TemporaryDirectory(prefix="hyperion-") as home:
        written = Path(home) / f"model.{form}"
        answer = _ask_child(source, written, form, memory_bytes, timeout_s)
        if answer.missing:
            extra = _EXTRAS.get(answer.missing, "sklearn")
            raise MissingExtra(
                f"converting to {form} needs {answer.missing}, which is not installed; install it with: "
                f"pip install 'hyperion-inference[{extra}]'"
            )
        if answer.error:
            raise ModelRefused(f"{source.name}: {answer.error}")
        if answer.difference > TOLERANCES[form]:
            raise ModelRefused(
                f"{source.name}: as {form} it predicts otherwise ({', '.join(answer.compared)}: up to "
                f"{answer.difference:.3g} of the value on {answer.rows} random rows, allowed: {TOLERANCES[form]:g}). "
                f"Nothing was written. Use {'skops' if form == 'onnx' else 'onnx'}, or sign the pickle instead"
            )
        _place(written, target)
    return Converted(
        answer.kind, answer.compared, answer.rows, answer.difference, answer.unsafe, answer.libraries, answer.network
    )


def _ask_child(source: Path, written: Path, form: str, memory_bytes: int, timeout_s: int) -> _Answer:
    # -I: neither the environment nor the working directory adds a module. The package itself may be a source tree.
    package = str(Path(__file__).resolve().parents[3])
    module = "hyperion.store.versions.convert_child"
    start = f"import sys, runpy; sys.path.append({package!r}); "
    start += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-I", "-c", start, str(source.absolute()), str(written), form]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(written.parent),
        "TMPDIR": str(written.parent),
        "LANG": "C.UTF-8",
    }
    # Each thread of a linear algebra library reserves address space, which is limited.
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    said, complained = written.parent / "answer", written.parent / "complaints"
    # Into files, whose size is limited, too: a pipe would be read into this process's memory.
    with open(said, "wb") as answer, open(complained, "wb") as complaints:
        process = subprocess.Popen(  # noqa: S603  this interpreter, and paths as arguments of their own
            [*command, str(memory_bytes), str(timeout_s)],
            env=environment,
            cwd=written.parent,
            stdin=subprocess.DEVNULL,
            stdout=answer,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ModelRefused(
                f"{source.name}: converting it took longer than {timeout_s} s; nothing was written"
            ) from error
        finally:
            # With whatever the pickle may have started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    try:
        return msgspec.json.decode(read_head(said, ANSWER_BYTES), type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        lines = read_head(complained, ANSWER_BYTES).decode("utf-8", "replace").strip().splitlines()
        raise ModelRefused(
            f"{source.name}: the process that opened it ended with {code} ({(lines or ['without a word'])[-1][:200]}), "
            f"with at most {memory_bytes >> 20} MiB and {timeout_s} s; nothing was written"
        ) from error


def _place(written: Path, target: Path) -> None:
    """All or nothing, also on another file system than that of temporary files."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(written, temporary)
        # Fails where somebody has put a file there meanwhile.
        os.link(temporary, target)
    except FileExistsError as error:
        raise ModelRefused(f"{target.name}: is there already; remove it, or choose another name") from error
    except OSError as error:
        raise ModelRefused(f"{target.name}: cannot be written: {(error.strerror or 'error').lower()}") from error
    finally:
        temporary.unlink(missing_ok=True)
