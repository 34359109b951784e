"""Class embeddings against open_clip's own whole models."""

import socket

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from models.errors import ModelError
from models.pretraining.text import TINY_TEXT, _build, encode_classes

PROMPTS = ["a satellite image of buildings", "a satellite image of water", "grass"]
VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}


def whole_model(kind, seed=3, **text):
    """A small open_clip model with vision and text, in one of open_clip's two ways of keeping the
    text tower."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(24, VISION, {**TINY_TEXT, **text}).eval()


@pytest.mark.parametrize(
    "kind, container",
    [
        (CLIP, "plain"),
        (CLIP, "state_dict"),
        (CLIP, "text only"),
        (CLIP, "half"),
        (CustomTextCLIP, "plain"),
        (CustomTextCLIP, "module."),
    ],
)
def test_weights_give_what_open_clip_gives(tmp_path, kind, container):
    model = whole_model(kind)
    state = model.state_dict()
    if container == "state_dict":
        state = {"epoch": 3, "state_dict": state}
    elif container == "module.":
        state = {f"module.{key}": value for key, value in state.items()}
    elif container == "text only":
        state = {key: value for key, value in state.items() if not key.startswith("visual.")}
    elif container == "half":
        model = model.half().float()
        state = {key: value.half() for key, value in state.items()}
    torch.save(state, tmp_path / "weights.pt")
    with torch.no_grad():
        expected = model.encode_text(SimpleTokenizer()(PROMPTS), normalize=True)
    found = encode_classes(PROMPTS, "tiny", weights=str(tmp_path / "weights.pt"), seed=0, width=24)
    torch.testing.assert_close(found.vectors, expected)
    assert found.description == f"open_clip tiny text tower, weights {tmp_path / 'weights.pt'}"


def test_safetensors(tmp_path):
    model = whole_model(CLIP)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    one, other = (
        encode_classes(
            PROMPTS, "tiny", weights=str(tmp_path / f"weights.{kind}"), seed=0, width=24
        ).vectors
        for kind in ("pt", "safetensors")
    )
    assert torch.equal(one, other)


def test_random_tower_follows_the_seed_and_leaves_the_global_state():
    before = torch.get_rng_state()
    one, again, other = (
        encode_classes(PROMPTS, "tiny", weights=None, seed=seed, width=24) for seed in (5, 5, 6)
    )
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(11)  # nor does the global state matter
    assert torch.equal(one.vectors, again.vectors)
    assert torch.equal(
        one.vectors, encode_classes(PROMPTS, "tiny", weights=None, seed=5, width=24).vectors
    )
    assert not torch.allclose(one.vectors, other.vectors)
    assert one.description == "random text tower (no weights given): tiny, seed 5"
    torch.set_rng_state(before)


def test_vectors_are_unit_distinct_and_do_not_depend_on_the_other_prompts():
    many = [f"class number {i}" for i in range(70)] + PROMPTS
    vectors = encode_classes(many, "tiny", weights=None, seed=0, width=24).vectors
    assert (
        vectors.shape == (73, 24) and vectors.dtype == torch.float32 and not vectors.requires_grad
    )
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(73))
    assert (torch.cdist(vectors, vectors) + torch.eye(73) > 1e-3).all()
    torch.testing.assert_close(
        vectors[70:], encode_classes(PROMPTS, "tiny", weights=None, seed=0, width=24).vectors
    )


def test_full_size_architecture_has_the_paper_width_and_no_vision_tower():
    assert open_clip.get_model_config("ViT-H-14")["embed_dim"] == 1024
    with torch.device("meta"):
        tower, _ = _build("ViT-H-14", 1024, seed=0)
    assert not any("visual" in name for name, _ in tower.named_parameters())
    width = 1024  # embeddings of tokens and positions, 24 layers, the last norm, the projection
    assert sum(p.numel() for p in tower.parameters()) == (
        (49408 + 77) * width + 24 * (12 * width**2 + 13 * width) + 2 * width + width**2
    )


@pytest.mark.parametrize(
    "architecture, width, message",
    [
        ("ViT-Z-99", 24, "expected an open_clip model name"),
        ("hf-hub:someone/something", 24, "expected an open_clip model name"),
        ("roberta-ViT-B-32", 512, "needs files from the Hugging Face hub"),
        ("ViT-B-16-SigLIP", 768, "needs files from the Hugging Face hub"),
        ("coca_ViT-B-32", 512, "no plain CLIP text tower"),
        ("ViT-H-14", 512, "gives 1024 dimensions, the model expects text_width 512"),
    ],
)
def test_impossible_architectures_are_refused_without_network(
    monkeypatch, architecture, width, message
):
    def no_network(*_):
        raise AssertionError("tried to open a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(ModelError, match=message) as error:
        encode_classes(PROMPTS, architecture, weights=None, seed=0, width=width)
    assert "\n" not in str(error.value)


def damaged(tmp_path, kind):
    """A weights path that cannot serve, by the way it is wrong."""
    path = tmp_path / "weights.pt"
    state = whole_model(CLIP, **({"layers": 3} if kind == "deeper" else {})).state_dict()
    if kind == "missing":
        return path
    if kind == "folder":
        return tmp_path
    if kind == "garbage":
        path.write_bytes(b"not weights")
    elif kind == "cut":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "empty":
        torch.save({}, path)
    else:
        if kind == "incomplete":
            del state["ln_final.weight"]
        elif kind == "shape":
            state["text_projection"] = state["text_projection"][:, :5]
        elif kind == "nan":
            state["ln_final.weight"][3] = torch.nan
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", "found none at"),
        ("folder", "found none at"),
        ("garbage", "cannot be read"),
        ("cut", "cannot be read"),
        ("list", "cannot be read"),
        ("empty", "cannot be read"),
        ("incomplete", "first 'ln_final.weight'"),
        ("shape", "first 'text_projection'"),
        ("deeper", "does not fit"),
        ("nan", "not finite"),
    ],
)
def test_weights_that_are_missing_or_do_not_fit_are_refused_in_one_line(tmp_path, kind, message):
    with pytest.raises(ModelError, match=message) as error:
        encode_classes(PROMPTS, "tiny", weights=str(damaged(tmp_path, kind)), seed=0, width=24)
    assert "\n" not in str(error.value)


def test_no_prompts_and_too_long_prompts_are_refused():
    with pytest.raises(ModelError, match="at least one class prompt"):
        encode_classes([], "tiny", weights=None, seed=0, width=24)
    with pytest.raises(ModelError, match="at most 75 tokens"):
        encode_classes(["field " * 76], "tiny", weights=None, seed=0, width=24)
    assert encode_classes(
        ["field " * 75], "tiny", weights=None, seed=0, width=24
    ).vectors.shape == (1, 24)
