"""Maps of images whose sides the merges do not halve evenly: their border is like their inside."""

import pytest
import torch
import torch.nn.functional as F

from models.initialise import initialise
from models.pretrained.model import Pretrained
from models.skysense import SkySense
from models.spec import ModelSpec

SIDES = range(256, 321, 4)
SPEC = ModelSpec(
    widths=(32, 64, 128, 256),
    depths=(2, 2, 2, 2),
    moe=None,
    fusion=None,
    context=None,
)


@pytest.fixture(scope="module")
def model():
    trunk = SkySense(SPEC)
    initialise(trunk, seed=0)
    return Pretrained(trunk)


def picture(kind: str) -> torch.Tensor:
    """One image of the largest side: of one colour, or soft spots with noise on that colour."""
    colour = torch.full((1, 3, SIDES[-1], SIDES[-1]), 0.7)
    if kind == "constant":
        return colour
    source = torch.Generator().manual_seed(0)
    spots = torch.randn(1, 3, 10, 10, generator=source)
    spots = F.interpolate(spots, size=SIDES[-1], mode="bicubic")
    return colour + 0.3 * spots + 0.1 * torch.randn(colour.shape, generator=source)


@torch.no_grad()
def last_map(model: Pretrained, image: torch.Tensor) -> torch.Tensor:
    """The map after stage 4, (h, w, D)."""
    return model({"hr": image}).pyramid["hr"][3][0].movedim(0, 2)


@pytest.mark.parametrize("kind", ["constant", "textured"])
def test_the_last_row_and_column_are_as_far_from_the_inner_mean_as_the_inner_cells(model, kind):
    image = picture(kind)
    for side in SIDES:
        cells = last_map(model, image[..., :side, :side])  # h w D
        inner = cells[1:-1, 1:-1]
        distance = (cells - inner.mean((0, 1))).norm(dim=-1)  # h w
        usual = distance[1:-1, 1:-1].mean()
        for border in (distance[-1], distance[:, -1], distance[0], distance[:, 0]):
            assert border.mean() < 1.5 * usual, (side, border.mean(), usual)


def test_a_row_behind_the_end_is_the_last_row_again(model):
    """An image of 9 x 9 patches against the same image with its last patches repeated."""
    image = picture("textured")[..., :36, :36]
    repeated = torch.cat([image, image[..., -4:]], dim=3)
    repeated = torch.cat([repeated, repeated[..., -4:, :]], dim=2)
    with torch.no_grad():
        odd = model({"hr": image}).pyramid["hr"][1]  # 1 D 5 5
        even = model({"hr": repeated}).pyramid["hr"][1]  # 1 D 5 5
    # at first weights the blocks of the window stages are the identity
    torch.testing.assert_close(odd, even, rtol=1e-4, atol=1e-5)
