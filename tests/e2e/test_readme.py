"""What the README and the terminal tell a newcomer to paste works as pasted."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from tests.services import needs_program

ROOT = Path(__file__).parents[2]


def run_curl(line: str) -> Any:
    """Run a line in the root of the project, as a shell would; its output as JSON."""
    needs_program("curl", package="curl")
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_curl_line_of_the_readme_reads_the_digits(serve: Any) -> None:
    lines = re.findall(r"^curl .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) == 1
    served = serve("examples/digits", options=())
    answer = run_curl(lines[0].replace("http://127.0.0.1:8080", served.url))
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["label"]["shape"] == [2]
    assert outputs["probabilities"]["shape"] == [2, 10]


def test_the_curl_line_on_the_terminal_works_as_pasted(serve: Any) -> None:
    served = serve("examples/digits")
    line = served.wait_for_line("curl ")
    assert shlex.split(line)[0] == "curl"
    assert "outputs" in run_curl(line)
