"""Refuses pickles: such a checkpoint can run code of its own when it is read, so that none is ever read here.

What a directory names is looked at first. Whatever way a library may still take to one while a model is loaded (an
adapter, a file that a configuration or an option names, the weights of a language) ends in `torch.load`, which is
refused meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from softmap.errors import ModelError
from softmap.forking import Lock

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SAFE = ".safetensors"
INDEX = ".safetensors.index.json"
HINT = (
    "A pickle checkpoint can run code of its own when it is read, so softmap does not read it. Convert it where you "
    "trust it: load it with transformers and call save_pretrained, which writes safetensors."
)
_LOCK = Lock(reentrant=True)


class PickleRefusedError(Exception):
    """What a library gets that would read a pickle."""


def pickle_error(name: str, got: str) -> ModelError:
    """That a model has weights of another kind than safetensors."""
    return ModelError(name, "weights in safetensors", got, HINT)


def check_directory(name: str, directory: str, files: list[str]) -> None:
    """Refuse a directory with pickles only, and one whose index or adapter names something else than safetensors.

    Raises:
        ModelError: it is one of these.
    """
    for file in files:
        if file.endswith(INDEX):
            _check_index(name, os.path.join(directory, file))
    pickles = [file for file in files if file.endswith(SUFFIXES)]
    if pickles and not any(file.endswith(SAFE) for file in files):
        raise pickle_error(name, f"{', '.join(pickles)} alone")
    if "adapter_config.json" in files and "adapter_model.bin" in files and f"adapter_model{SAFE}" not in files:
        raise pickle_error(name, "an adapter in adapter_model.bin")


def _check_index(name: str, index: str) -> None:
    """Refuse an index of something else than safetensors; one that can't be read is left to the library's own words."""
    try:
        with open(index, encoding="utf-8") as file:
            shards = set(map(str, json.load(file)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    wrong = sorted(shard for shard in shards if not shard.endswith(SAFE))
    if wrong:
        raise pickle_error(name, f"{', '.join(wrong[:3])} in {os.path.basename(index)}")


@contextlib.contextmanager
def no_pickles(name: str) -> Iterator[None]:
    """Refuse every pickle that this thread would read in the block; other threads go on as they are.

    Raises:
        ModelError: one was to be read, whatever became of that.
    """
    import torch

    me, asked = threading.get_ident(), list[str]()

    def load(f: Any, *arguments: Any, **options: Any) -> Any:
        if threading.get_ident() == me:
            refuse(f)
        return before(f, *arguments, **options)

    def refuse(f: Any) -> NoReturn:
        asked.append(os.path.basename(os.fspath(f)) if isinstance(f, str | os.PathLike) else type(f).__name__)
        raise PickleRefusedError(f"{asked[-1]} is no safetensors file")

    with _LOCK:
        before = torch.load
        torch.load = torch.serialization.load = load
        try:
            yield
        except Exception as error:
            if asked:
                raise pickle_error(name, asked[0]) from error
            raise
        finally:
            torch.load = torch.serialization.load = before
    if asked:
        raise pickle_error(name, asked[0])
