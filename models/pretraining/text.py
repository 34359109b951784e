"""Class names -> unit vectors by a CLIP text tower, once before training (supplement, A.2).

Only the text half of an open_clip model is built. Nothing is downloaded: the tokenizer's vocabulary
ships with the package and the weights are a file the user names, or a seeded random tower that says
so.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError

# A small random tower for demonstrations and tests; its last projection has the width asked for.
TINY = "tiny"
TINY_TEXT = {"width": 64, "heads": 2, "layers": 2}
# Entries of an open_clip checkpoint beside the text tower.
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
    """What ``encode_classes`` returns."""

    vectors: Tensor  # K D float32, norm one
    description: str  # which tower made them, for the log


@torch.no_grad()
def encode_classes(
    prompts: list[str], architecture: str, weights: str | None, seed: int, width: int
) -> ClassEmbeddings:
    """Embed one prompt a class with the text tower of an open_clip model.

    ``architecture``: an open_clip model name, or "tiny". ``weights``: path to open_clip weights
    (.pt, .bin or .safetensors, whole model or text tower), or None for a random tower drawn from
    ``seed``; the global random state is left alone. ``width``: the text width D of the model.
    Raises ModelError for an unknown architecture or one that would need a download, for another
    width, for weights that are missing or do not fit, and for no prompts or too long ones.
    """
    tower, tokenizer = _build(architecture, width, seed)
    if weights is None:
        description = f"random text tower (no weights given): {architecture}, seed {seed}"
    else:
        _load(tower, architecture, Path(weights))
        description = f"open_clip {architecture} text tower, weights {weights}"
    tokens = _tokenize(tokenizer, prompts, architecture)  # K L
    vectors = torch.cat([tower(part) for part in tokens.split(64)])  # K D
    if not vectors.isfinite().all():
        raise ModelError(
            f"text.weights: {weights} gives embeddings that are not finite; expected sound "
            f"{architecture} weights"
        )
    return ClassEmbeddings(F.normalize(vectors.float(), dim=-1), description)


def _build(architecture: str, width: int, seed: int) -> tuple[nn.Module, object]:
    """The random text tower in eval mode and its tokenizer."""
    from open_clip.model import (  # seconds to import, and only needed here
        CLIPTextCfg,
        _build_text_tower,
    )
    from open_clip.tokenizer import SimpleTokenizer

    config = _config(architecture, width)
    if config["embed_dim"] != width:
        raise ModelError(
            f"text.architecture: {architecture} gives {config['embed_dim']} dimensions, the model expects "
            f"text_width {width}; change one of them"
        )
    text = CLIPTextCfg(**config["text_cfg"])
    with torch.random.fork_rng(
        devices=[]
    ):  # the tower draws its first values from the global state
        torch.manual_seed(seed)
        tower = _build_text_tower(width, text, quick_gelu=config.get("quick_gelu", False))
    tokenizer = SimpleTokenizer(context_length=text.context_length, **(text.tokenizer_kwargs or {}))
    return tower.float().eval(), tokenizer


def _config(architecture: str, width: int) -> dict:
    """The open_clip configuration of an architecture; only towers that need no file from elsewhere."""
    import open_clip

    if architecture == TINY:
        return {"embed_dim": width, "text_cfg": TINY_TEXT}
    if (
        architecture not in open_clip.list_models()
    ):  # get_model_config would look on the network for "hf-hub:..."
        raise ModelError(
            f"text.architecture: expected an open_clip model name (open_clip.list_models()) or {TINY!r}, "
            f"found {architecture!r}"
        )
    config = open_clip.get_model_config(architecture)
    text = config["text_cfg"]
    if text.get("hf_model_name") or text.get("hf_tokenizer_name") or "multimodal_cfg" in config:
        raise ModelError(
            f"text.architecture: {architecture} needs files from the Hugging Face hub or is no plain CLIP "
            "text tower; choose one such as 'ViT-H-14'"
        )
    return config


def _tokenize(tokenizer, prompts: list[str], architecture: str) -> Tensor:
    """Prompts -> token ids (K, L); the tokenizer itself would cut long prompts silently."""
    if not prompts:
        raise ModelError(
            "text: expected at least one class prompt, found none; give the class table some classes"
        )
    limit = tokenizer.context_length - 2  # start and end tokens
    for prompt in prompts:
        if len(tokenizer.encode(prompt)) > limit:
            raise ModelError(
                f"text: expected prompts of at most {limit} tokens for {architecture}, found "
                f"{len(tokenizer.encode(prompt))} in {prompt!r}; shorten it"
            )
    return tokenizer(prompts)


def _load(tower: nn.Module, architecture: str, path: Path) -> None:
    """Copy an open_clip checkpoint's text part into the tower; ModelError unless it fits exactly."""
    from open_clip.factory import load_state_dict

    if not path.is_file():
        raise ModelError(
            f"text.weights: expected a file of open_clip weights, found none at {path}; "
            "give a path, or null for a random tower"
        )
    try:
        state = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # pickle, zip and safetensors all fail in their own ways
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ModelError(
            f"text.weights: {path} cannot be read as open_clip weights "
            f"({type(error).__name__}: {reason}); expected .pt, .bin or .safetensors"
        ) from error
    if any(
        key.startswith("text.") for key in state
    ):  # models whose text tower is a module of its own
        state = {
            key.removeprefix("text."): value
            for key, value in state.items()
            if key.startswith("text.")
        }
    state = {key: value for key, value in state.items() if not key.startswith(OTHER_KEYS)}
    own = tower.state_dict()
    wrong = sorted(
        key
        for key in own.keys() | state.keys()
        if key not in own or key not in state or own[key].shape != state[key].shape
    )
    if wrong:
        raise ModelError(
            f"text.weights: {path} does not fit the text tower of {architecture}: {len(wrong)} of "
            f"{len(own)} entries are missing, too many or of another shape, first {wrong[0]!r}; "
            "set text.architecture to the weights' own"
        )
    tower.load_state_dict(state)
