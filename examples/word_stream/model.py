"""Text, word by word: a Markov chain over the first page of Alice in Wonderland (public domain).

The smallest model that streams. `predict` answers with the whole text, `stream` with one word at a time, as a language
model would. The names `text_input` and `text_output` are those of the generate extension, so that curl can call
`…/generate` and `…/generate_stream`. The same prompt always gives the same text.
"""

import pathlib
import random
from collections.abc import Iterator
from itertools import pairwise
from zlib import crc32

import numpy as np

LONGEST = 40


class Model:
    """Continues each prompt up to the end of a sentence, or for `LONGEST` words."""

    inputs = {"text_input": ("BYTES", [-1])}
    outputs = {"text_output": ("BYTES", [-1])}

    def load(self, directory: pathlib.Path) -> None:
        words = (directory / "corpus.txt").read_text().split()
        self.beginnings = [words[0]]
        self.followers: dict[str, list[str]] = {}
        for word, follower in pairwise(words):
            self.followers.setdefault(word, []).append(follower)
            if word.endswith((".", "!", "?")):
                self.beginnings.append(follower)

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        texts = [" ".join(self.continue_prompt(prompt)).encode() for prompt in inputs["text_input"]]
        return {"text_output": np.array(texts, dtype=object)}

    def stream(self, inputs: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """One word for each prompt in each part; an empty text for those that are already complete."""
        chains = [self.continue_prompt(prompt) for prompt in inputs["text_input"]]
        while True:
            words = [next(chain, "") for chain in chains]
            if not any(words):
                return
            yield {"text_output": np.array([f"{word} ".encode() if word else b"" for word in words], dtype=object)}

    def continue_prompt(self, prompt: bytes) -> Iterator[str]:
        """The words that follow the prompt's last word, where the corpus has it, or else a new sentence."""
        chance = random.Random(crc32(prompt))
        spoken = prompt.decode("utf-8", "replace").split()
        word = spoken[-1] if spoken else ""
        for _ in range(LONGEST):
            word = chance.choice(self.followers.get(word) or self.beginnings)
            yield word
            if word.endswith((".", "!", "?")):
                return
