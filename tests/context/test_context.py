"""What lies beside a checkpoint is read as plain values, and nothing there can do more than be reported."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffai_stream.context.base import Sourced
from diffai_stream.context.files import MAX_YAML_NBYTES
from diffai_stream.context.read import context_of
from diffai_stream.context.tokenizer import tokenizer_beside
from diffai_stream.formats.catalogue import open_checkpoint
from tests.checkpoints import write_safetensors


def checkpoint(folder: Path):
    write_safetensors(folder / "model.safetensors", {"w": np.zeros(2, np.float32)})
    return open_checkpoint(str(folder))


def put(folder: Path, name: str, value: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def test_nothing_beside_it_is_an_empty_context(tmp_path):
    context = context_of(checkpoint(tmp_path / "model"))
    assert context.files == context.oddities == context.history == ()
    assert (context.step, context.tokenizer, context.hyperparameters) == (None, None, {})


def test_files_are_found_and_their_scalars_flattened(tmp_path):
    folder = tmp_path / "checkpoint-300"
    put(folder, "config.json", {"num_attention_heads": 8, "rope": {"theta": 1e4}, "architectures": ["X"], "none": None})
    put(folder, "generation_config.json", {"temperature": 0.6})
    put(folder, "hparams.yaml", "lr: 0.001\nmodel:\n  depth: 3\n  act: gelu\n")
    context = context_of(checkpoint(folder))
    assert context.files == ("config.json", "generation_config.json", "hparams.yaml")
    assert context.hyperparameters["rope.theta"] == Sourced(1e4, "config.json")
    assert context.hyperparameters["model.depth"] == Sourced(3, "hparams.yaml")
    assert context.hyperparameters["lr"] == Sourced(0.001, "hparams.yaml")
    assert "architectures" not in context.hyperparameters
    assert context.step == 300


def test_numbers_are_found_in_nested_configurations(tmp_path):
    put(tmp_path, "config.json", {"text_config": {"num_attention_heads": 4}, "vocab_size": "many", "hidden_size": True})
    context = context_of(checkpoint(tmp_path))
    assert context.number("n_head", "num_attention_heads") == 4
    assert context.number("vocab_size") is None
    assert context.number("hidden_size") is None


def test_a_training_log_is_ordered_and_joined_by_step(tmp_path):
    log = [
        {"step": 20, "loss": 1.5, "learning_rate": 1e-4, "epoch": 0.2},
        {"step": 10, "loss": 2.0},
        {"step": 20, "eval_loss": 1.7},
        {"loss": 3.0},
        {"step": 30, "loss": "NaN"},
    ]
    put(tmp_path, "trainer_state.json", {"global_step": 30, "log_history": log})
    context = context_of(checkpoint(tmp_path))
    assert [point.step for point in context.history] == [10, 20, 30]
    assert context.history[1] == (20, 0.2, 1.5, 1.7, 1e-4)
    assert context.history[2].loss is None
    assert context.step == 30


@pytest.mark.parametrize(
    ("name", "step"), [("checkpoint-42", 42), ("step_1000", 1000), ("iter-7", 7), ("model-00001-of-00002", None), ("v2", None)]
)
def test_the_name_of_a_directory_may_tell_the_step(tmp_path, name, step):
    assert context_of(checkpoint(tmp_path / name)).step == step


class Arguments:
    """Stands for the arguments of a trainer, which are pickled beside a checkpoint."""

    def __init__(self):
        self.learning_rate, self.num_train_epochs, self.fp16 = 5e-5, 3, False


def test_pickled_arguments_are_read_without_their_class(tmp_path):
    torch = pytest.importorskip("torch")
    found = checkpoint(tmp_path)
    torch.save(Arguments(), tmp_path / "training_args.bin")
    context = context_of(found)
    told = {name.rpartition(".")[2]: row for name, row in context.hyperparameters.items()}
    assert told["learning_rate"] == Sourced(5e-5, "training_args.bin")
    assert told["num_train_epochs"].value == 3


TOKENIZERS = {
    "BPE": ("tokenizer.json", {"model": {"vocab": {"a": 0, "b": 2}}, "added_tokens": [{"id": 3, "content": "<s>"}]}),
    "Unigram": ("tokenizer.json", {"model": {"vocab": [["a", -1.0], ["?", 0], ["b", -2.0], ["<s>", 0]]}}),
    "vocab.json": ("vocab.json", {"a": 0, "b": 2, "<s>": 3}),
    "vocab.txt": ("vocab.txt", "a\n?\nb\n<s>\n"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_token_texts(tmp_path, kind):
    name, value = TOKENIZERS[kind]
    put(tmp_path, name, value)
    tokenizer = tokenizer_beside(str(tmp_path))
    assert tokenizer is not None
    assert tokenizer.source == name
    assert [tokenizer.text(n) for n in (0, 2, 3, 4, -1)] == ["a", "b", "<s>", None, None]
    assert len(tokenizer.tokens) == 4


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
HOSTILE = {
    "not json": ("config.json", "{", "not JSON"),
    "a list": ("config.json", "[1]", "not an object"),
    "too deep": ("trainer_state.json", '{"a":' * 100_000 + "1" + "}" * 100_000, "deeply"),
    "yaml aliases": ("hparams.yaml", BOMB, "aliases"),
    "yaml that is none": ("hparams.yaml", "a: [", "not readable"),
    "yaml too long": ("hparams.yaml", "a: " + "x" * MAX_YAML_NBYTES, "plausible"),
    "no checkpoint": ("training_args.bin", "hello", ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_cannot_be_read_is_an_oddity(tmp_path, case):
    name, text, reason = HOSTILE[case]
    put(tmp_path, name, text)
    context = context_of(checkpoint(tmp_path))
    assert [oddity.code for oddity in context.oddities] == ["unreadable_context"]
    assert reason in context.oddities[0].message
    assert name in str(context.oddities[0].path)


def test_yaml_tags_build_nothing(tmp_path):
    marker = tmp_path / "run"
    put(
        tmp_path,
        "hparams.yaml",
        f"x: !!python/object/apply:os.mkdir ['{marker}']\nlr: 0.1\ncfg: !!python/object:os.path {{a: 1}}\n",
    )
    context = context_of(checkpoint(tmp_path))
    assert not marker.exists()
    assert context.hyperparameters["lr"].value == 0.1
    assert context.hyperparameters["cfg.a"].value == 1


def test_absurd_token_numbers_allocate_nothing(tmp_path):
    put(tmp_path, "vocab.json", {"a": 0, "b": 10**15, "c": -1, "d": 1.5})
    tokenizer = tokenizer_beside(str(tmp_path))
    assert tokenizer is not None
    assert list(tokenizer.tokens) == ["a"]
