"""GPUs that a plan knows, with the numbers of their makers' data sheets."""

from dataclasses import dataclass, replace

from engine.errors import ConfigError
from models.kernels.gpu import Gpu

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Card:
    """One kind of GPU. Rates are a second's, FLOPs dense, bytes of a link in one direction."""

    name: str
    chip: Gpu
    memory: int  # bytes, as nvidia-smi shows
    bf16: float  # FLOPs
    float32: float  # FLOPs, without tensor cores
    bandwidth: float  # bytes between the card and its memory
    link: float = 450e9  # bytes between two cards of a node
    network: float = 50e9  # bytes of a card to other nodes
    node: int = 8  # cards of a node


_H100 = Card(
    name="H100 SXM 80 GB",
    chip=Gpu(processors=132, capability=9),
    memory=81_559 * MIB,
    bf16=989e12,
    float32=67e12,
    bandwidth=3.35e12,
)
CARDS = {
    "h20": replace(
        _H100,
        name="H20 96 GB",
        chip=Gpu(processors=78, capability=9),
        memory=97_871 * MIB,
        bf16=148e12,
        float32=44e12,
        bandwidth=4.0e12,
    ),
    "h100": _H100,
    "h200": replace(_H100, name="H200 SXM 141 GB", memory=143_771 * MIB, bandwidth=4.8e12),
    "a100": Card(
        name="A100 SXM 80 GB",
        chip=Gpu(processors=108, capability=8),
        memory=81_920 * MIB,
        bf16=312e12,
        float32=19.5e12,
        bandwidth=2.04e12,
        link=300e9,
        network=25e9,
    ),
    "b200": Card(
        name="B200 SXM 180 GB",
        chip=Gpu(processors=148, capability=10),
        memory=183_359 * MIB,
        bf16=2250e12,
        float32=75e12,
        bandwidth=8.0e12,
        link=900e9,
    ),
    "rtx4090": Card(
        name="RTX 4090 24 GB",
        chip=Gpu(processors=128, capability=8),
        memory=24_564 * MIB,
        bf16=165e12,
        float32=82.6e12,
        bandwidth=1.008e12,
        link=32e9,
        network=3e9,
    ),
}


def card_of(name: str) -> Card:
    """The card of a name in ``CARDS``.

    Raises:
        ConfigError: There is no such name.
    """
    if name not in CARDS:
        raise ConfigError(f"--gpu: expected one of {', '.join(CARDS)}, found {name!r}")
    return CARDS[name]
