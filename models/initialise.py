"""First values of all parameters.

They do not depend on the order of the modules, the device, the precision or the ranks that hold the
experts: every parameter has a random stream of its own, seeded by its name. Before that, all
parameters are NaN, so that a forgotten one shows.

Rules, by the module that owns the parameter:
- ``init_parameter(name, tensor, generator)``, if the owner has this method. It fills ``tensor``,
  which is float32 on the CPU. For an owner that is a ParameterDict or ParameterList, the module
  around it is asked, with a dotted ``name``.
- Linear, convolution and Embedding: truncated normal of std 0.02, biases zero. Norms: one and zero.
  The matrices of linear layers and convolutions can have another std, or one that suits their
  number of inputs.
- ``derive_parameters()`` of any module runs at the end, for values that follow from other
  parameters.
Persistent buffers that hold NaN are filled like parameters.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from models.errors import ModelError

STD = 0.02
# Sampling by the inverse error function yields an infinite value once in 2^24 draws. A bound of
# 2.0, usual elsewhere, lets it through as 100 standard deviations; this model has 3 x 10^9
# parameters.
BOUND = 3 * STD
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)
WEIGHTS = (*LAYERS, nn.Embedding)
CONTAINERS = (nn.ParameterDict, nn.ParameterList)

Rule = Callable[[str, Tensor, torch.Generator], None]


@runtime_checkable
class _Derives(Protocol):
    """A module some of whose values follow from others."""

    def derive_parameters(self) -> None:
        """Set the values that follow from others."""
        ...


@torch.no_grad()
def initialise(
    module: nn.Module,
    seed: int,
    canonical: Callable[[str], str] = str,
    *,
    std: float | None = STD,
) -> None:
    """Fill all parameters of a module from ``seed``.

    Args:
        module: Its parameters and the persistent buffers that hold NaN are filled in place.
        seed: The run's seed.
        canonical: Maps a parameter's name here to its name in the whole model. Experts that are
            spread over ranks need it.
        std: Of the matrices of linear layers and convolutions. None: 1 / sqrt(inputs) of each, so
            that its outputs have the variance of its inputs.

    Raises:
        ModelError: A parameter has no rule, or no finite first value.
    """
    tensors = dict(_uninitialised(module))
    for tensor in tensors.values():
        tensor.fill_(torch.nan)
    for name, tensor in tensors.items():
        owner, local_name = _owner(module, name)
        value = torch.full(tensor.shape, torch.nan, dtype=torch.float32)
        _rule(owner, name)(local_name, value, generator(seed, canonical(name)))
        if isinstance(owner, LAYERS) and value.dim() > 1:
            value.mul_(_std(value, std) / STD)
        tensor.copy_(value)
    for part in module.modules():
        if isinstance(part, _Derives):
            part.derive_parameters()
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelError(
                f"initialise: expected finite values in {name}, found NaN or infinity after its "
                "rule; correct init_parameter or derive_parameters of the module that owns it"
            )


def generator(seed: int, name: str) -> torch.Generator:
    """The random stream of one name, on the CPU so that all devices start alike."""
    digest = hashlib.blake2b(repr((seed, name)).encode(), digest_size=8).digest()
    bits = int.from_bytes(digest, "big") >> 1  # 63 bits: torch takes a signed seed
    return torch.Generator().manual_seed(bits)


def truncated_normal(tensor: Tensor, generator: torch.Generator) -> None:
    """Fill with a normal of std 0.02 cut at three standard deviations."""
    nn.init.trunc_normal_(tensor, std=STD, a=-BOUND, b=BOUND, generator=generator)


def _uninitialised(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters, and the persistent buffers that wait for a value."""
    yield from module.named_parameters()
    state = module.state_dict(keep_vars=True).keys()
    for name, buffer in module.named_buffers():
        if name in state and buffer.is_floating_point() and buffer.isnan().any():
            yield name, buffer


def _std(matrix: Tensor, std: float | None) -> float:
    """Standard deviation of a layer's matrix, whose rows are its outputs."""
    if std is None:
        return matrix[0].numel() ** -0.5
    return std


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that owns the named parameter, and the name that it knows it by."""
    path, _, local_name = name.rpartition(".")
    owner = module.get_submodule(path)
    while isinstance(owner, CONTAINERS) and path:
        path, _, key = path.rpartition(".")
        owner = module.get_submodule(path)
        local_name = f"{key}.{local_name}"
    return owner, local_name


def _rule(owner: nn.Module, name: str) -> Rule:
    """What fills a parameter of ``owner``; ``name`` is the parameter's in the whole module."""
    if hasattr(owner, "init_parameter"):
        return cast(Rule, owner.init_parameter)
    if isinstance(owner, NORMS):
        return _fill_norm
    if isinstance(owner, WEIGHTS):
        return _fill_linear
    raise ModelError(
        f"initialise: expected a rule for {name}, found none; "
        f"give {type(owner).__name__} a method init_parameter(name, tensor, generator)"
    )


def _fill_norm(name: str, tensor: Tensor, generator: torch.Generator) -> None:
    if name == "weight":
        tensor.fill_(1.0)
    else:
        tensor.zero_()


def _fill_linear(name: str, tensor: Tensor, generator: torch.Generator) -> None:
    if "bias" in name:
        tensor.zero_()
    else:
        truncated_normal(tensor, generator)
