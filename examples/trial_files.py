"""Makes `trial/model/` and `trial/notes.csv`: what an installation is tried with (`helm test`, simulated sites).

The model is a BERT of two layers with random weights: it loads and trains as a real one does, in seconds, and learns
nothing worth having. Its digest stands in `trial/run.yaml` and `trial/policy.yaml`, so the files are made of NumPy and
JSON alone, and no version of torch or transformers changes a byte. The notes are some of `triage-notes.csv`, synthetic.
`python examples/trial_files.py --out FOLDER`.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from triage_notes import SEED, notes

KEPT = 80  # patients of each hospital
WIDTH, LAYERS, INNER, POSITIONS = 32, 2, 64, 32
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("trial"))
    folder = parser.parse_args().out
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    rows = [(hospital, patient, label, text) for hospital, patient, label, text in notes(SEED) if _kept(patient)]
    with (folder / "notes.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("hospital", "patient", "label", "text"))
        table.writerows(rows)
    words = _words(text for _, _, _, text in rows)
    _write(model / "config.json", _config(len(words)))
    _write(model / "tokenizer.json", _tokenizer(words))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": POSITIONS}
    _write(model / "tokenizer_config.json", settings)
    save_file(_weights(len(words)), model / "model.safetensors", metadata={"format": "pt"})


def _kept(patient: str) -> bool:
    return int(patient[2:]) < KEPT


def _words(texts: Iterable[str]) -> list[str]:
    """The vocabulary: every word and sign of the notes, in small letters."""
    found = {word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower())}
    return [*SPECIAL, *sorted(found)]


def _write(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _config(words: int) -> dict[str, object]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": words,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 0,
    }


def _tokenizer(words: list[str]) -> dict[str, object]:
    """Whole words in small letters, between [CLS] and [SEP], as the tokenizers library reads it."""
    around = {name: {"id": name, "ids": [SPECIAL.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    kinds = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    single = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **kinds} for i, name in enumerate(SPECIAL)],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": around},
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "[UNK]"},
    }


def _weights(words: int) -> dict[str, NDArray[np.float32]]:
    """A BERT's tensors but for its pooler, which features do not need: matrices (out, in) of variance 1/in."""
    rng = np.random.default_rng(SEED)
    found: dict[str, NDArray[np.float32]] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        # uniform draws: products of exact numbers, so every machine has the same ones
        drawn = (2 * rng.random((rows, columns)) - 1) * np.sqrt(3 / columns)
        found[f"{name}.weight"] = drawn.astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(name, rows, columns)
        found[f"{name}.bias"] = np.zeros(rows, np.float32)

    def norm(name: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    for name, rows in (("word", words), ("position", POSITIONS), ("token_type", 2)):
        matrix(f"embeddings.{name}_embeddings", rows, WIDTH)
    norm("embeddings.LayerNorm")
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", INNER, WIDTH)
        linear(f"{layer}.output.dense", WIDTH, INNER)
        norm(f"{layer}.output.LayerNorm")
    return found


if __name__ == "__main__":
    main()
