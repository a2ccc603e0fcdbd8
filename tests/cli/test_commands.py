"""The command line as a person or a script meets it: exit codes, one-line errors, JSON."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hyperion.cli import process
from hyperion.cli.group import cli
from hyperion.cli.main import main
from hyperion.fleet.home import claim_home

MODELS = Path(__file__).parents[1] / "e2e" / "models"


def hyperion(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HYPERION_")}
    return subprocess.run(
        [sys.executable, "-m", "hyperion", *arguments],
        cwd=cwd,
        env={**clean, "HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd), **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


FREE = ("--port", "0", "--grpc-port", "0", "--admin-port", "0")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nonsense",), 2, "No such command 'nonsense'"),
        (("serve", "--prot", "1"), 2, "No such option '--prot'"),
        (("serve", "nothing.onnx"), 2, "nothing.onnx: no such file or directory"),
        (("serve", "--port", "seventy"), 2, "port (from --port): expected an integer"),
        (("serve", "--port", "70000"), 2, "expected 0 to 65535, got 70000"),
        (("serve", "--name", "x"), 2, "--name is for one PATH"),
        (("serve", "--tls-cert", "x"), 2, "--tls-key"),
        (("serve", "--trusted-proxies", "here"), 2, "--trusted-proxies"),
        (("predict", "m"), 2, "--json or with --file"),
        (("predict", "m", "--json", "{"), 2, "--json: not JSON:"),
        (("predict", "m", "--file", "nothing.json"), 2, "--file nothing.json: No such file or directory"),
        (("predict", "m", "--json", "[]", "--url", "ftp://x"), 2, "expected a URL"),
        (("predict", "a b", "--json", "[]", "--url", "http://127.0.0.1:1"), 1, "models/a%20b: cannot be reached"),
        (("bench", "here"), 2, "expected a URL"),
        (("apply", "-f", "nothing.yaml", "--token", "t"), 2, "nothing.yaml: no such file or directory"),
        (("get", "endpoint", "\udcff", "--token", "t"), 2, "not text that can be sent"),
        (("gateway", "--home", "nowhere"), 2, "nowhere is no home of a platform"),
        (("gateway", "--tls-cert", "x"), 2, "--tls-cert and --tls-key belong together"),
        (("gateway", "--trusted-proxies", "here"), 2, "--trusted-proxies: expected networks"),
        (("control", "--home", "nowhere"), 1, "no supervisor"),
        (("runner", ".", "--socket", "s"), 1, "nothing here that can be served"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hyperion", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    written = capsys.readouterr()
    assert (ended.value.code, written.out) == (code, "")
    (line,) = written.err.splitlines()
    assert line.startswith("hyperion: ")
    assert message in line


def test_a_path_that_cannot_be_served_is_one_line_on_stderr_too(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_text("junk")
    ended = hyperion("serve", "broken.onnx", *FREE, cwd=tmp_path)
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (1, "")
    assert line.startswith("hyperion: broken.onnx: not an ONNX model")


def test_a_setting_that_is_found_wrong_when_the_model_is_served_already_ends_the_platform(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    ended = hyperion("serve", str(MODELS / "sums"), "--trusted-keys", "junk.pem", *FREE, cwd=tmp_path)
    assert ended.returncode == 1
    assert "hyperion: --trusted-keys: junk.pem: expected a public key" in ended.stderr


@pytest.mark.parametrize("words", [(), ("key",), ("rollout",)])
def test_a_group_without_a_command_shows_its_help_and_is_wrong_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = hyperion(*words, cwd=tmp_path)
    assert ended.stdout == hyperion(*words, "--help", cwd=tmp_path).stdout
    assert (ended.returncode, ended.stderr) == (
        2,
        f"hyperion: which command? (see: {' '.join(('hyperion', *words))} --help)\n",
    )


def test_a_locale_that_lacks_characters_gets_others_for_them(tmp_path: Path) -> None:
    ended = hyperion("--help", cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "models, ?" in ended.stdout


def test_output_that_nobody_can_take_is_one_line(tmp_path: Path) -> None:
    command = f"{sys.executable} -m hyperion config show > /dev/full"
    ended = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("hyperion: ")
    assert "No space left on device" in line
    closed = f"{sys.executable} -m hyperion config show >&-"
    ended = subprocess.run(closed, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_names_every_command(tmp_path: Path) -> None:
    text = hyperion("--help", cwd=tmp_path).stdout
    for name in ("serve", "predict", "bench", "config", "doctor", "gateway", "control", "runner", "completion"):
        assert f"\n  {name} " in text


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    from hyperion import __version__

    assert hyperion("--version", cwd=tmp_path).stdout == f"hyperion {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_complete_hyperion(shell: str) -> None:
    assert "_HYPERION_COMPLETE" in CliRunner().invoke(cli, ["completion", shell]).output


def test_completion_knows_the_commands(tmp_path: Path) -> None:
    variables = {"_HYPERION_COMPLETE": "bash_complete", "COMP_WORDS": "hyperion do", "COMP_CWORD": "1"}
    assert hyperion(cwd=tmp_path, **variables).stdout == "plain,doctor\n"


def test_config_show_tells_each_value_and_its_source(tmp_path: Path) -> None:
    (tmp_path / "hyperion.toml").write_text("gateway-workers = 3\n")
    result = hyperion("config", "show", "--json", "--replicas", "2", cwd=tmp_path, HYPERION_PORT="9000")
    found = {entry["key"]: (entry["value"], entry["source"]) for entry in json.loads(result.stdout)}
    assert found["gateway_workers"] == (3, str(tmp_path / "hyperion.toml"))
    assert found["port"] == (9000, "HYPERION_PORT")
    assert found["replicas"] == (2, "--replicas")
    assert found["home"] == (".hyperion", "default")
    assert "HYPERION_PORT" in hyperion("config", "show", cwd=tmp_path, HYPERION_PORT="9000").stdout
    for form in ((), ("--json",)):
        text = hyperion("config", "show", *form, cwd=tmp_path, HYPERION_REDIS_URL="redis://:s3cret@cache/0").stdout
        assert ("redis://:***@cache/0" in text, "s3cret" in text) == (True, False)


def test_doctor_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = hyperion("doctor", "--json", "--grpc-port", "0", "--admin-port", "0", "--port", port, cwd=tmp_path)
    verdicts = {check["name"]: check["verdict"] for check in json.loads(result.stdout)}
    assert (result.returncode, verdicts[f"port {port}"]) == (1, "bad")
    assert verdicts["memfd"] == verdicts["pidfd"] == verdicts["die with parent"] == "ok"
    assert "in use" in result.stderr


def test_doctor_takes_the_ports_of_a_platform_that_runs_for_no_fault(tmp_path: Path) -> None:
    home = claim_home(tmp_path / ".hyperion")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = hyperion("doctor", "--json", "--no-grpc", "--admin-port", port, "--port", "0", cwd=tmp_path)
    os.close(home.lock_fd)
    ports = {check["name"]: check for check in json.loads(result.stdout) if check["name"].startswith("port")}
    assert set(ports) == {"port 0", f"port {port}"}
    assert (ports[f"port {port}"]["verdict"], str(os.getpid()) in ports[f"port {port}"]["detail"]) == ("note", True)


def test_serving_only_what_is_refused_fails_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04N.")
    result = hyperion("serve", "model.pkl", *FREE, cwd=tmp_path)
    assert result.returncode == 1
    assert any(line.startswith("hyperion: ") and "--trust-pickle" in line for line in result.stderr.splitlines())


def test_serving_only_what_cannot_be_loaded_fails_with_the_reason(tmp_path: Path) -> None:
    model = tmp_path / "broken"
    model.mkdir()
    (model / "model.py").write_text(
        "class Model:\n    inputs = outputs = {}\n\n    def load(self, d):\n        1 / 0\n"
    )
    result = hyperion("serve", "broken", *FREE, cwd=tmp_path)
    assert result.returncode == 1
    assert any(line.startswith('hyperion: model "broken": ') for line in result.stderr.splitlines())


def test_a_second_platform_in_one_home_is_refused(tmp_path: Path) -> None:
    from hyperion.fleet.home import claim_home

    home = claim_home(tmp_path / "home")
    result = hyperion("serve", str(MODELS / "sums"), "--home", "home", *FREE, cwd=tmp_path)
    os.close(home.lock_fd)
    assert result.returncode == 2
    assert f"in use by process {os.getpid()}" in result.stderr


def test_a_port_that_is_taken_is_named_with_its_option(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = hyperion("serve", str(MODELS / "sums"), *FREE[2:], "--port", port, cwd=tmp_path)
    assert (result.returncode, "--port" in result.stderr) == (2, True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_process_without_room_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fill(_raw: str, _notify: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setitem(process._ROLES, "control", fill)
    said: list[str] = []
    assert process.run_role("control", "{}", said.append) == 1
    assert said == [f"ERROR={os.strerror(number)}: free some in the home, or choose another with --home"]
