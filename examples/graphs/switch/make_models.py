"""Make the models of the switch: how friendly a text is, by a list of words for each language.

    python examples/graphs/switch/make_models.py build

Writes the Python models `german` and `english`, which take a `text` and the `language` that it is said to be in, and a
`request.json`.
"""

import argparse
import json
from pathlib import Path

CODE = """
import numpy as np

GOOD = {good}
BAD = {bad}


class Model:
    inputs = {{"text": ("BYTES", [-1]), "language": ("BYTES", [-1])}}
    outputs = {{"friendly": ("FP32", [-1])}}

    def predict(self, inputs):
        words = [set(text.decode("utf-8", "replace").lower().split()) for text in inputs["text"]]
        return {{"friendly": np.array([len(GOOD & one) - len(BAD & one) for one in words], np.float32)}}
"""
WORDS = {
    "german": ("danke gut super toll freundlich", "schlecht kaputt leider nie falsch"),
    "english": ("thanks good great nice friendly", "bad broken unfortunately never wrong"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the models of the switch example.")
    parser.add_argument("out", type=Path, help="directory to write to")
    out: Path = parser.parse_args().out
    for name, (good, bad) in WORDS.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        code = CODE.format(good=set(good.split()), bad=set(bad.split()))
        (out / name / "model.py").write_text(code)
    given = {"text": "danke das war super", "language": "de"}
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [value]} for name, value in given.items()]
    (out / "request.json").write_text(json.dumps({"inputs": inputs}))


if __name__ == "__main__":
    main()
