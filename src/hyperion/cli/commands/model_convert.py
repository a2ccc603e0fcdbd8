"""`hyperion model convert SOURCE TARGET`, and `hyperion model import PATH`: what is done to models before a push."""

from pathlib import Path
from typing import Literal, cast

import click

from hyperion.cli.admin import Admin, add_connection, name_actor
from hyperion.cli.commands.model_push import register, upload_missing
from hyperion.cli.show import print_json


@click.command("convert", short_help="Turn a pickle into a format that runs no code.")
@click.argument("source", type=click.Path(exists=True, dir_okay=False))
@click.argument("target", type=click.Path())
@click.option("--trust-pickle", is_flag=True, help="open the pickle, which runs whatever code lies in it")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
def convert(source: str, target: str, trust_pickle: bool, as_json: bool) -> None:
    """Write the scikit-learn model of the pickle or joblib file SOURCE to TARGET (.skops or .onnx), and compare what
    both predict. The pickle is opened in a process of its own, without a network where the kernel allows that."""
    form = Path(target).suffix.removeprefix(".")
    if form not in ("skops", "onnx"):
        raise click.UsageError(f"{target}: expected a name that ends in .skops or .onnx")
    import msgspec

    from hyperion.store.versions.convert import convert as convert_file

    done = convert_file(Path(source), Path(target), cast(Literal["skops", "onnx"], form), trust_pickle=trust_pickle)
    if as_json:
        print_json({"target": target, **msgspec.to_builtins(done)})
        return
    print(
        f"{target}: {done.kind}; {', '.join(done.compared)} alike on {done.rows} rows (largest relative difference "
        f"{done.difference:.2g})"
    )


@click.command("import", short_help="Register every model of a Triton or MLServer repository.")
@click.argument("path", type=click.Path(exists=True))
@click.option("--reason", default="", help="why; the ledger keeps it")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def import_repository(admin: Admin, path: str, reason: str, as_json: bool) -> None:
    """Register each model version that the repository at PATH serves, under its name and number there."""
    import time

    from hyperion.store.versions.import_repository import prepare_repository
    from hyperion.store.versions.push import Details

    details = Details(created_by=name_actor(), created_at=time.time())
    done = []
    for pushed in prepare_repository(Path(path), details):
        upload_missing(admin, pushed.sources)
        done.append(register(admin, pushed.manifest, reason=reason))
        if not as_json:
            state = "registered" if done[-1]["created"] else "was there already"
            print(f"{pushed.manifest.model}@{pushed.manifest.version}: {state}, {pushed.manifest.digest}")
    if as_json:
        print_json(done)
