"""The plain objects that enter and leave the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from models.errors import ModelError
from models.spec import ModelSpec

FUSED = "fused"  # name of the fused features beside those of the modalities

IMAGE_AXES = "B V T C H W"
MASK_AXES = "B V T n n"


@dataclass
class Views:
    """All views of one size in the local batch."""

    # modality -> B V T C H W, normalised. Values in invalid pixels have no influence.
    images: dict[str, Tensor]
    # modality -> B V T n n bool, a flag a pixel, or on any coarser grid that divides the image
    valid: dict[str, Tensor]
    # modality -> B V T int64, day of the year - 1
    days: dict[str, Tensor]
    # B int64, index of the sample's region; -1: no context
    region: Tensor
    # rows and columns of the fusion grid; None: ``FusionSpec.cells_per_token`` says
    grid: tuple[int, int] | None = None
    # B bool, samples that read the prototypes of their region; None: all that have one
    reads_context: Tensor | None = None


@dataclass
class Features:
    """What the model makes of the views of one size.

    The maps of the modalities have the last stage's width.
    """

    # modality or FUSED -> B V T h w D (fused: T = 1)
    maps: dict[str, Tensor]
    # modality or FUSED -> B V T h w bool
    valid: dict[str, Tensor]
    # B V g g D, projection of the fusion output that reads and updates the prototypes
    query: Tensor | None = None


def pooled(features: Features, name: str) -> tuple[Tensor, Tensor]:
    """Average one feature over the valid cells and frames of the first view.

    Args:
        features: The features of one view size.
        name: A modality, or ``FUSED``.

    Returns:
        The means (B, D) float32, zero where nothing is valid, and whether anything is (B,) bool.
    """
    mask = features.valid[name][:, 0].flatten(1)  # B Thw
    maps = features.maps[name][:, 0].flatten(1, -2).float()  # B Thw D
    total = maps.where(mask[..., None], 0.0).sum(1)  # B D
    return total / mask.sum(1, keepdim=True).clamp(min=1), mask.any(1)


def check_images(views: Mapping[str, Views], spec: ModelSpec) -> None:
    """Check that a model of ``spec`` can take the images and masks of ``views``, by their shapes.

    Args:
        views: View size -> views.
        spec: The model's specification.

    Raises:
        ModelError: The views are no dictionary, a modality is unknown, or a shape is wrong.
    """
    if not isinstance(views, Mapping) or not all(isinstance(v, Views) for v in views.values()):
        raise ModelError(
            "model: expected a dictionary from view size to models.features.Views, found "
            f'{_describe(views)}; call model({{"global": Views(images, valid, days, region)}})'
        )
    if not views:
        raise ModelError("model: expected views of at least one size, found an empty dictionary")
    known = ", ".join(spec.modalities)
    for size, inputs in views.items():
        if not inputs.images:
            raise ModelError(
                f"views {size!r}: expected images of some of {known}, found none; add them"
            )
        for name, images in inputs.images.items():
            if name not in spec.modalities:
                raise ModelError(
                    f"views {size!r}: expected modalities among {known}, found {name!r}; rename "
                    "it, or build the model with it"
                )
            where = f"views {size!r}, modality {name!r}"
            _check_image_shape(images, spec.modalities[name].bands, spec.patch, where)
            _check_mask_shape(inputs, name, where)


def check_dates(views: Mapping[str, Views]) -> None:
    """Check that the days and regions of ``views`` fit the images, by their shapes.

    Raises:
        ModelError: An entry is missing, or a shape is wrong.
    """
    for size, inputs in views.items():
        for name, images in inputs.images.items():
            batch = images.shape[0]
            if name not in inputs.days or inputs.days[name].shape != images.shape[:3]:
                raise ModelError(
                    f"views {size!r}, modality {name!r}: expected days of the shape "
                    f"{tuple(images.shape[:3])}, found {_shape_of(inputs.days, name)}; pass the "
                    "day of the year - 1 of each view's frames"
                )
            if inputs.region.shape != (batch,):
                raise ModelError(
                    f"views {size!r}: expected region of the shape {(batch,)}, found "
                    f"{tuple(inputs.region.shape)}; pass one index a sample, -1 for no context"
                )


def check_normalised(images: Tensor, where: str) -> None:
    """Refuse images that hold stored integers, which normalisation has not seen.

    Args:
        images: Of one modality.
        where: What they are, for the message.

    Raises:
        ModelError: The type is an integer's.
    """
    if images.is_floating_point():
        return
    raise ModelError(
        f"{where}: expected normalised images of a float type, found {images.dtype}; give the "
        "pixels to data.tiles.modalities.normalise first (docs/usage.md)"
    )


def _check_image_shape(images: Tensor, bands: int, patch: int, where: str) -> None:
    """Type, number of axes, bands and pixels of the images of one modality."""
    check_normalised(images, where)
    shape = tuple(images.shape)
    if len(shape) != len(IMAGE_AXES.split()):
        raise ModelError(
            f"{where}: expected images with the axes {IMAGE_AXES}, found the shape {shape}; add "
            "missing axes with unsqueeze"
        )
    if shape[3] != bands:
        raise ModelError(
            f"{where}: expected {bands} bands on axis 3 of {IMAGE_AXES}, found {shape[3]} in the "
            f"shape {shape}; select the bands that the model was built for"
        )
    if shape[-2] % patch or shape[-1] % patch:
        raise ModelError(
            f"{where}: expected sides that are multiples of {patch} pixels, found "
            f"{shape[-2]} x {shape[-1]}; crop or pad the images"
        )


def _check_mask_shape(inputs: Views, name: str, where: str) -> None:
    """The mask of one modality: a flag a cell, on a grid that divides the images."""
    images = inputs.images[name]
    mask = inputs.valid.get(name)
    fits = (
        mask is not None
        and mask.dim() == len(MASK_AXES.split())
        and mask.shape[:3] == images.shape[:3]
        and _divides(mask.shape[-2:], images.shape[-2:])
    )
    if not fits:
        raise ModelError(
            f"{where}: expected valid with the axes {MASK_AXES} and a grid that divides the images "
            f"of the shape {tuple(images.shape)}, found {_shape_of(inputs.valid, name)}; pass one "
            "flag a frame and cell"
        )


def _divides(grid: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether a grid has cells and divides the sides of an image."""
    return all(cells > 0 and side % cells == 0 for cells, side in zip(grid, sides))


def _shape_of(tensors: Mapping[str, Tensor], name: str) -> str:
    """The shape of one entry, for a message."""
    if name not in tensors:
        return "none"
    return f"the shape {tuple(tensors[name].shape)}"


def _describe(views: object) -> str:
    """What was passed as the views, for a message."""
    if isinstance(views, Tensor):
        return f"a tensor of the shape {tuple(views.shape)}"
    if isinstance(views, Mapping):
        kinds = sorted({type(value).__name__ for value in views.values()})
        return f"a dictionary of {', '.join(kinds)}"
    return f"an object of the type {type(views).__name__}"
