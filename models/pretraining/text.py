"""Class names -> unit vectors by a CLIP text tower, once before training (supplement, A.2).

Only the text half of an open_clip model is built. Nothing is downloaded: the vocabulary of the
tokenizer ships with the package, and the weights are a file that the user names. Without weights
the tower is random and seeded, and its description says so.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError

# A small random tower for demonstrations and tests; its last projection has the width asked for.
TINY = "tiny"
TINY_TEXT = {"width": 64, "heads": 2, "layers": 2}
PROMPTS_AT_ONCE = 64
# Entries of an open_clip checkpoint that do not belong to the text tower.
OTHER_KEYS = (
    "visual.",
    "logit_scale",
    "logit_bias",
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
)


class ClassEmbeddings(NamedTuple):
    """Class embeddings and where they come from."""

    vectors: Tensor  # K D float32, norm one
    description: str  # the tower that made them, for the log


@torch.no_grad()
def encode_classes(
    prompts: list[str], architecture: str, *, weights: str | None, seed: int, width: int
) -> ClassEmbeddings:
    """Embed one prompt a class with the text tower of an open_clip model.

    Args:
        prompts: one a class.
        architecture: an open_clip model name, or "tiny".
        weights: path to open_clip weights (.pt, .bin or .safetensors; whole model or text tower),
            or None for a random tower.
        seed: of the random tower. The global random state is left as it is.
        width: text width D of the model.

    Raises:
        ModelError: the architecture is unknown, would need a download or has another width; the
            weights are missing, damaged or do not fit; there are no prompts, or one is too long.
    """
    tower, tokenizer = _build(architecture, width, seed=seed)
    if weights is None:
        description = f"random text tower (no weights given): {architecture}, seed {seed}"
    else:
        _load(tower, architecture, Path(weights))
        description = f"open_clip {architecture} text tower, weights {weights}"
    tokens = _tokenize(tokenizer, prompts, architecture)  # K L
    vectors = torch.cat([tower(part) for part in tokens.split(PROMPTS_AT_ONCE)])  # K D
    if not vectors.isfinite().all():
        raise ModelError(
            f"text.weights: {weights} gives embeddings that are not finite; expected sound "
            f"{architecture} weights"
        )
    return ClassEmbeddings(F.normalize(vectors.float(), dim=-1), description)


def _build(architecture: str, width: int, *, seed: int) -> tuple[nn.Module, Any]:
    """Build the random text tower, in eval mode, and its tokenizer."""
    # Takes seconds to import and is only needed here.
    from open_clip.model import CLIPTextCfg, _build_text_tower
    from open_clip.tokenizer import SimpleTokenizer

    config = _config(architecture, width)
    if config["embed_dim"] != width:
        raise ModelError(
            f"text.architecture: {architecture} gives {config['embed_dim']} dimensions, the model "
            f"expects text_width {width}; change one of them"
        )
    text = CLIPTextCfg(**config["text_cfg"])
    # The tower draws its first values from the global random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = _build_text_tower(width, text, quick_gelu=config.get("quick_gelu", False))
    tokenizer = SimpleTokenizer(context_length=text.context_length, **(text.tokenizer_kwargs or {}))
    return tower.float().eval(), tokenizer


def _config(architecture: str, width: int) -> dict[str, Any]:
    """Return the open_clip configuration of a tower that needs no file from elsewhere."""
    import open_clip

    if architecture == TINY:
        return {"embed_dim": width, "text_cfg": TINY_TEXT}
    # get_model_config would look on the network for "hf-hub:..."
    if architecture not in open_clip.list_models():
        raise ModelError(
            f"text.architecture: expected an open_clip model name (open_clip.list_models()) or "
            f"{TINY!r}, found {architecture!r}"
        )
    config = open_clip.get_model_config(architecture)
    text = config["text_cfg"]
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "multimodal_cfg" in config:
        raise ModelError(
            f"text.architecture: {architecture} needs files from the Hugging Face hub or is no "
            "plain CLIP text tower; choose one such as 'ViT-H-14'"
        )
    return config


def _tokenize(tokenizer: Any, prompts: list[str], architecture: str) -> Tensor:
    """Token ids (K, L) of the prompts. The tokenizer itself would cut long prompts silently."""
    if not prompts:
        raise ModelError(
            "text: expected at least one class prompt, found none; give the class table some "
            "classes"
        )
    limit = tokenizer.context_length - 2  # start and end tokens
    for prompt in prompts:
        length = len(tokenizer.encode(prompt))
        if length > limit:
            raise ModelError(
                f"text: expected prompts of at most {limit} tokens for {architecture}, found "
                f"{length} in {prompt!r}; shorten it"
            )
    return tokenizer(prompts)


def _load(tower: nn.Module, architecture: str, path: Path) -> None:
    """Copy the text part of an open_clip checkpoint into the tower; it must fit exactly."""
    state = _text_part(_read(path))
    expected = tower.state_dict()
    wrong = []
    for key in sorted(expected.keys() | state.keys()):
        if key not in expected or key not in state or expected[key].shape != state[key].shape:
            wrong.append(key)
    if wrong:
        raise ModelError(
            f"text.weights: {path} does not fit the text tower of {architecture}: {len(wrong)} of "
            f"{len(expected)} entries are missing, unknown or of another shape, first "
            f"{wrong[0]!r}; set text.architecture to that of the weights"
        )
    tower.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    """Read an open_clip checkpoint."""
    from open_clip.factory import load_state_dict

    if not path.is_file():
        raise ModelError(
            f"text.weights: expected a file of open_clip weights, found none at {path}; "
            "give a path, or null for a random tower"
        )
    try:
        return load_state_dict(str(path), weights_only=True)
    except Exception as error:  # pickle, zip and safetensors raise errors of different types
        lines = str(error).splitlines() or [""]
        raise ModelError(
            f"text.weights: {path} cannot be read as open_clip weights "
            f"({type(error).__name__}: {lines[0][:120]}); expected .pt, .bin or .safetensors"
        ) from error


def _text_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep the entries of the text tower, under the names that a plain text tower has."""
    prefix = ""
    if any(key.startswith("text.") for key in state):
        prefix = "text."  # in models whose text tower is a module of its own
    part = {}
    for key, value in state.items():
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and not name.startswith(OTHER_KEYS):
            part[name] = value
    return part
