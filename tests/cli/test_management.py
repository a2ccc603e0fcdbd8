"""The commands of the registry, of resources and of rollouts against a live management API, as from elsewhere."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from hyperion.cli.main import main
from hyperion.cli.show import print_table
from hyperion.schema.model import ModelOptions, Signature
from hyperion.schema.snapshot import ModelState, ServedModel, ServedVersion, Snapshot
from tests.api.platform import SUMS, Platform

ENDPOINT = """\
kind: Endpoint
metadata: {name: %s}
spec:
  model: fraud@1
  rollout: {steps: [{percent: 10, hold_s: 3600}, {pause: true}]}
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("cli") / "home") as platform:
        for version in ("1", "2"):
            platform.push("fraud", version)
        yield platform


@pytest.fixture
def run(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, as from a directory that knows only the URL and the token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYPERION_ADMIN_URL", platform.url)
    monkeypatch.setenv("HYPERION_TOKEN", platform.token)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["hyperion", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        written = capfd.readouterr()
        return Result(int(ended.value.code or 0), written.out, written.err)

    return run


def make(run: Run, platform: Platform, name: str) -> None:
    Path(f"{name}.yaml").write_text(ENDPOINT % name)
    assert run("apply", "-f", f"{name}.yaml").code == 0
    platform.wait_for(name, "promoted")


def test_apply_shows_what_it_changes_and_diff_says_whether_it_would(run: Run, platform: Platform) -> None:
    Path("e.yaml").write_text(ENDPOINT % "applied")
    before = run("diff", "-f", "e.yaml")
    assert (before.code, "+ Endpoint applied: created" in before.out) == (1, True)
    assert "dry run" in run("apply", "-f", "e.yaml", "--dry-run").out
    assert run("get", "endpoint", "applied").code == 1
    assert "    + spec.model: fraud@1" in run("apply", "-f", "e.yaml").out
    assert run("diff", "-f", "e.yaml") == Result(0, "", "")
    Path("e.yaml").write_text((ENDPOINT % "applied") + "  deadline_ms: 9\n")
    done = json.loads(run("apply", "-f", "e.yaml", "--reason", "faster", "-o", "json").out)
    assert done["changes"][0]["fields"] == [{"path": "spec.deadline_ms", "before": 30000, "after": 9}]
    (entry,) = json.loads(run("ledger", "show", "applied", "--kind", "endpoint.apply", "-n", "1", "--json").out)
    assert entry["reason"] == "faster"
    assert entry["actor"].startswith("admin:")


def test_what_changes_can_be_had_in_every_form(run: Run) -> None:
    Path("e.yaml").write_text(ENDPOINT % "formed")
    assert yaml.safe_load(run("diff", "-f", "e.yaml", "-o", "yaml").out)["changes"][0]["action"] == "created"
    assert json.loads(run("apply", "-f", "e.yaml", "--json").out)["dry_run"] is False
    unchanged = json.loads(run("apply", "-f", "e.yaml", "--json").out)
    assert (unchanged["dry_run"], unchanged["changes"][0]["action"]) == (False, "unchanged")
    deleted = yaml.safe_load(run("delete", "endpoint", "formed", "-o", "yaml").out)
    assert (deleted["dry_run"], deleted["changes"][0]["action"]) == (False, "deleted")


def test_the_table_of_endpoints_has_what_is_served_from_paths(
    run: Run, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = ServedVersion("1", "", 1, "python", Signature((), ()), ModelOptions(), ())
    index = (ModelState("sums", "1", "READY"), ModelState("earlier", "", "UNAVAILABLE", "unloaded"))
    monkeypatch.setattr(platform, "snapshot_now", Snapshot(1, (ServedModel("sums", "1", (version,)),), index))
    rows = [line.split() for line in run("get", "endpoints").out.splitlines()]
    assert ["sums", "a", "PATH", "1", "ready", "-", "-", "-"] in rows
    assert "earlier" not in [row[0] for row in rows]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [20, 60, 100])
def test_a_table_loses_no_letter_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    print_table(("endpoint", "model", "reason"), [("a-long-name-of-one", "digits@champion", "why " * 40)], terminal)
    words = re.sub("\x1b\\[[0-9;]*m", "", terminal.getvalue()).split()
    assert {"endpoint", "model", "reason", "a-long-name-of-one", "digits@champion"} <= set(words)
    assert words.count("why") == 40


def test_a_mistake_is_one_line_with_file_and_line(run: Run) -> None:
    Path("e.yaml").write_text(ENDPOINT % "x" + "  batchin: 1\n")
    result = run("apply", "-f", "e.yaml")
    assert result == Result(1, "", 'hyperion: e.yaml:6: spec.batchin: unknown field; did you mean "batching"?\n')


def test_what_get_shows_as_yaml_can_be_applied(run: Run, platform: Platform) -> None:
    make(run, platform, "shown")
    Path("again.yaml").write_text(run("get", "endpoints", "shown", "-o", "yaml").out)
    assert run("diff", "-f", "again.yaml").code == 0
    assert run("get", "Endpoint").out.splitlines()[0].split()[0] == "endpoint"
    shown = json.loads(run("get", "endpoint", "shown", "-o", "json").out)
    assert shown["status"]["rollout"]["to"] == "1"
    assert "fraud" in run("get", "models").out
    assert "promoted" in run("get", "rollout", "shown").out
    assert run("get", "replicas").code == 0
    wrong = run("get", "endpont")
    assert (wrong.code, 'did you mean "endpoints"?' in wrong.err) == (2, True)


def test_delete_takes_the_endpoint_away(run: Run, platform: Platform) -> None:
    make(run, platform, "doomed")
    assert "deleted" in run("delete", "endpoint", "doomed", "--yes").out
    gone = run("delete", "endpoint", "doomed", "--yes")
    assert (gone.code, "not known here" in gone.err) == (1, True)


def test_a_push_uploads_only_what_is_missing_and_versions_count(run: Run, platform: Platform) -> None:
    Path("sums").mkdir()
    Path("sums/model.py").write_bytes((SUMS / "model.py").read_bytes() + b"# mine\n")
    Path("sums/big.bin").write_bytes(os.urandom(3 << 20))
    Path("card.md").write_text("# Sums\n")
    options = ("--metric", "auc=0.97", "--tag", "team=risk", "--param", "depth=3", "--card", "card.md")
    lineage = ("--git-commit", "abc", "--data-version", "d1", "--owner", "ada", "--alias", "champion")
    first = json.loads(run("model", "push", "sums", "sums", *options, *lineage, "--json").out)
    assert (first["version"], first["created"], first["uploaded_files"]) == ("1", True, 2)
    Path("sums/model.py").write_bytes((SUMS / "model.py").read_bytes() + b"# changed\n")
    second = json.loads(run("model", "push", "sums", "sums", "--json").out)
    assert (second["version"], second["uploaded_files"]) == ("2", 1)
    assert "sums@2: was there already" in run("model", "push", "sums", "sums", "--version", "2").out
    shown = json.loads(run("model", "show", "sums@champion", "--json").out)
    assert (shown["version"], shown["manifest"]["metrics"]) == ("1", {"auc": 0.97})
    assert shown["manifest"]["lineage"]["git_commit"] == "abc"
    text = run("model", "show", "sums@1").out
    assert "# Sums" in text
    assert "metric auc" in text
    assert "champion" in run("model", "show", "sums").out
    assert "sums" in run("model", "list").out
    assert run("model", "alias", "sums", "champion", "2").out == "sums@champion is sums@2\n"


def test_versions_never_change(run: Run) -> None:
    Path("m").mkdir()
    Path("m/model.py").write_bytes((SUMS / "model.py").read_bytes() + b"# other\n")
    result = run("model", "push", "fraud", "m", "--version", "1")
    assert (result.code, "versions never change" in result.err) == (1, True)


def test_verify_names_the_file_that_was_damaged(run: Run, platform: Platform) -> None:
    platform.push("rot", "1")
    assert "all as pushed; not signed" in run("model", "verify", "rot@1").out
    manifest = platform.desk.models.show("rot@1").manifest
    path = platform.blobs.path_or_none(next(f.sha256 for f in manifest.files if f.path == "weights.txt"))
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(b"rot 2")
    result = run("model", "verify", "rot@1")
    assert (result.code, "weights.txt" in result.err) == (1, True)


def test_a_rollout_is_driven_and_watched_to_its_end(run: Run, platform: Platform) -> None:
    make(run, platform, "driven")
    assert "a rollout to fraud@2 begins" in run("deploy", "driven", "fraud@2").out
    platform.wait_for("driven", "canary", "2")
    assert "already" in run("deploy", "driven", "fraud@2").out
    status = json.loads(run("rollout", "status", "driven", "--json").out)
    assert {"endpoint", "state", "from", "to", "step", "weight", "verdict", "reason", "evidence", "started_at"} <= set(
        status
    )
    assert "canary 1 -> 2, step 1/2, weight 10 %" in run("rollout", "status", "driven").out
    assert "paused" in run("rollout", "pause", "driven").out
    refused = run("rollout", "pause", "driven")
    assert (refused.code, refused.err) == (3, "hyperion: pause driven: it is paused already\n")
    threading.Timer(0.5, lambda: platform.ask("rollouts/driven/abort", {"reason": "no"})).start()
    watched = run("rollout", "watch", "driven")
    assert watched.code == 3
    assert "aborted 1 -> 2" in watched.out.splitlines()[-1]


@pytest.mark.parametrize(("verb", "code"), [("promote", 0), ("abort", 3)])
def test_a_deploy_that_waits_tells_how_it_ended(run: Run, platform: Platform, verb: str, code: int) -> None:
    make(run, platform, f"waited-{verb}")

    def decide() -> None:
        platform.wait_for(f"waited-{verb}", "canary", "2")
        platform.ask(f"rollouts/waited-{verb}/{verb}", {})

    thread = threading.Thread(target=decide)
    thread.start()
    result = run("deploy", f"waited-{verb}", "fraud@2", "--wait", "--json")
    thread.join()
    states = [json.loads(line)["state"] for line in result.out.splitlines()]
    assert (result.code, states[-1]) == (code, "promoted" if verb == "promote" else "aborted")


def test_a_terminal_sees_the_rollout_live(run: Run, platform: Platform) -> None:
    make(run, platform, "live")
    run("deploy", "live", "fraud@2")
    platform.wait_for("live", "canary", "2")
    leader, follower = pty.openpty()
    arguments = (sys.executable, "-m", "hyperion", "rollout", "watch", "live")
    with subprocess.Popen(arguments, stdout=follower, stderr=follower, env={**os.environ, "COLUMNS": "120"}) as process:
        os.close(follower)
        shown = os.read(leader, 65_536)  # waits until it draws
        platform.ask("rollouts/live/promote", {"reason": "good enough"})
        try:
            while chunk := os.read(leader, 65_536):
                shown += chunk
        except OSError:  # the terminal's other end is closed
            assert process.wait(10) == 0
    os.close(leader)
    text = shown.decode()
    assert "canary" in text
    assert "good enough" in text
    assert "promoted" in text


def test_keys_are_shown_once_and_do_what_their_scopes_say(
    run: Run, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = json.loads(run("key", "create", "--tenant", "acme", "--scope", "read", "--expires", "1h", "--json").out)
    assert set(made) == {"id", "key", "tenant", "scopes", "expires_at"}
    assert made["key"] not in run("key", "list").out
    monkeypatch.setenv("HYPERION_TOKEN", made["key"])
    assert run("get", "endpoints").code == 0
    Path("e.yaml").write_text(ENDPOINT % "mine")
    refused = run("apply", "-f", "e.yaml")
    assert (refused.code, 'needs the scope "deploy"' in refused.err) == (1, True)
    monkeypatch.setenv("HYPERION_TOKEN", platform.token)
    assert run("key", "revoke", made["id"]).code == 0
    assert "revoked" in run("key", "list").out
    monkeypatch.setenv("HYPERION_TOKEN", made["key"])
    assert "no token or key that counts here" in run("get", "endpoints").err


def test_the_ledger_is_verified_against_a_checkpoint_that_was_kept(run: Run, platform: Platform) -> None:
    assert "entries are as they were signed" in run("ledger", "verify").out
    lines = run("ledger", "export", "--checkpoint", "kept.txt").out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(len(lines)))
    platform.push("later", "1")
    assert "continues kept.txt" in run("ledger", "verify", "--checkpoint", "kept.txt").out


def test_the_ledger_says_what_was_live(run: Run, platform: Platform) -> None:
    make(run, platform, "lived")
    assert "1 (1)" in run("ledger", "live", "lived").out
    assert run("ledger", "live", "lived", "--at", "2020-01-01").code == 1
    assert run("ledger", "live", "lived", "--at", "noon").code == 2


def test_a_repository_is_imported_whole(run: Run) -> None:
    for name in ("one", "two"):
        Path(f"repository/{name}").mkdir(parents=True)
        Path(f"repository/{name}/model.py").write_bytes((SUMS / "model.py").read_bytes())
    done = json.loads(run("model", "import", "repository", "--json").out)
    assert [item["model"] for item in done] == ["one", "two"]
    assert "one@1: was there already" in run("model", "import", "repository").out


def test_a_pickle_is_not_converted_without_trust(run: Run) -> None:
    Path("m.pkl").write_bytes(b"\x80\x04N.")
    assert run("model", "convert", "m.pkl", "m.txt").code == 2
    result = run("model", "convert", "m.pkl", "m.skops")
    assert (result.code, "--trust-pickle" in result.err) == (1, True)


def test_without_url_and_token_the_home_is_asked(run: Run, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYPERION_ADMIN_URL")
    monkeypatch.delenv("HYPERION_TOKEN")
    result = run("get", "endpoints")
    assert (result.code, "no token" in result.err) == (2, True)
    monkeypatch.setenv("HYPERION_ADMIN_PORT", str(platform.port))
    monkeypatch.setenv("HYPERION_HOME", str(platform.home))
    assert run("get", "endpoints").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("get", "endpoints", "--url", "http://127.0.0.1:9"), 1, "cannot be reached"),
        (("get", "endpoints", "--url", "ftp://x"), 2, "expected a URL"),
        (("deploy", "nothing", "fraud@1"), 1, "not known here"),
        (("model", "push", "m"), 2, "give PATH"),
        (("model", "push", "m", "nothing"), 2, "no such file"),
        (("model", "push", "m", ".", "--metric", "auc"), 2, "expected NAME=VALUE"),
        (("model", "push", "m", ".", "--metric", "auc=x"), 2, "expected a number"),
        (("model", "verify", "m"), 2, "expected NAME@VERSION"),
        (("model", "show", "nope"), 1, "no model 'nope'"),
        (("explain", "nothing"), 1, "not in the sampled log"),
        (("key", "revoke", "nothing"), 1, "no key"),
        (("apply",), 2, "Missing option"),
        (("apply", "-f", "nothing.yaml"), 2, "no such file"),
        (("deploy", "e", "m@1", "--strategy", "hope"), 2, "hope"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(run: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = run(*arguments)
    (line,) = result.err.splitlines()
    assert (result.code, words in line) == (code, True), line
