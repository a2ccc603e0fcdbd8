"""`hyperion explain PREDICTION_ID`: what led to an answer."""

import click

from hyperion.cli.admin import Admin, add_connection
from hyperion.cli.commands.ledger import write_time
from hyperion.cli.show import print_json, print_table


@click.command("explain", short_help="Show what led to one prediction.")
@click.argument("prediction_id")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def command(admin: Admin, prediction_id: str, as_json: bool) -> None:
    """Show the endpoint, the release, the version, its code and data, who let it go live, and the ledger entries behind
    a prediction of the sampled log. PREDICTION_ID is the x-request-id of its answer."""
    found = admin.get("explain", prediction_id)
    if as_json:
        print_json(found)
        return
    prediction, model = found["prediction"], found["model"]
    name = f"{model['model']}@{model['version']}" if model else f"{prediction['version']} (no longer registered)"
    step = found["step"]
    rows = [
        ("prediction", prediction["id"]),
        ("time (UTC)", write_time(prediction["time"])),
        ("endpoint", prediction["endpoint"]),
        (
            "answer",
            f"{prediction['code']} in {prediction['latency_ms']:.2f} ms"
            + (" (shadow)" if prediction["shadow"] else ""),
        ),
        ("model", name),
        ("digest", prediction["digest"]),
        ("git commit", found["git_commit"]),
        ("data version", found["data_version"]),
        ("release", found["release"]),
        (
            "rollout step",
            f"{step['kind']}, {step['detail'].get('weight', 0) * 100:g} % (entry {step['seq']})" if step else "",
        ),
        *(
            (
                "approved by",
                f"{entry['actor']}: {entry['kind']} {entry['subject']} (entry {entry['seq']}) {entry['reason']}",
            )
            for entry in found["approvals"]
        ),
        ("ledger entries", ", ".join(str(entry["seq"]) for entry in found["entries"])),
    ]
    print_table(("", ""), [row for row in rows if row[1]])
