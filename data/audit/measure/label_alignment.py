"""Whether labels lie on what the image shows, or displaced, turned or mirrored.

Where labels fit, pixels of one class look alike. So the share of the image's variance that lies
between the classes (eta squared, the F test's measure of effect) is computed for every shift of the
labels and for each of their eight orientations, by correlation (Lewis, Fast normalized
cross-correlation, 1995). If another place than the stored one explains clearly more, the labels are
displaced. A wrong answer is worse than none: without a clear peak nothing is said. Where labels or
image have no details below 10 m, a few large fields may fit elsewhere by chance.
"""

from dataclasses import dataclass

import numpy as np

from data.audit.measure.masked_image import enlarge
from data.tiles.tile import LABEL_PIXELS, UNLABELLED

MOST_SIDE = 128  # pixels of the grid on which labels and image are compared
MOST_CLASSES = 8  # the largest; the time grows with their number
REACH = 4  # the greatest shift is the grid's side divided by this
# Measured on the bundled labels and on 102 maps of CORINE over Sentinel-2: docs/audit.md.
CLEAR = 0.15  # eta squared of a clear answer, with a lead of this share over the rest
LEAD = 0.15
FAINT = 0.06  # eta squared of a faint answer, which must be twice what is found elsewhere
FAINT_LEAD = 0.5
GAIN = 0.3  # of the best eta squared: how much better it is than the stored place
TURNED_GAIN = 0.4
FINE_LIMIT = 5.0  # metres: OpenStreetMap over aerial images is as good as this
COARSE_LIMIT = 20.0  # metres, over cells of 10 m: maps such as CORINE are no better
LEAST_SHARE = 0.02  # of the pixels in a class
LEAST_OVERLAP = 0.4  # of the labels lie on valid pixels, at a shift
LEAST_WEIGHT = 4.0  # pixels of a class at a shift
BLOCKY = 0.99  # of the borders between classes lie on the edges of cells
CELL = 10.0  # metres
ORIENTATIONS = {
    "turned by 90 degrees to the left": (1, False),
    "turned by 180 degrees": (2, False),
    "turned by 90 degrees to the right": (3, False),
    "mirrored left to right": (0, True),
    "mirrored and turned by 90 degrees to the left": (1, True),
    "mirrored top to bottom": (2, True),
    "mirrored and turned by 90 degrees to the right": (3, True),
}


@dataclass(frozen=True)
class Features:
    """What an image shows on a square grid: F features and where they are known."""

    values: np.ndarray  # F S S float64
    valid: np.ndarray  # S S bool
    metres: float  # a pixel


@dataclass(frozen=True)
class Misfit:
    """A place at which labels fit clearly better than where they are stored."""

    words: str
    stored: float  # eta squared
    best: float


def image_features(image: np.ndarray, valid: np.ndarray) -> Features:
    """Brightness and roughness of a fine image.

    Args:
        image: C P*N P*N, P a multiple of 8.
        valid: N N bool.
    """
    cells = len(valid)
    per_cell = _grid_pixels(cells)
    side = per_cell * cells
    block = image.shape[-1] // side
    blocks = image.reshape(len(image), side, block, side, block)
    means = blocks.mean((2, 4), dtype=np.float32)  # C S S
    grey = image.mean(0, dtype=np.float32).reshape(side, block, side, block)
    roughness = np.log(grey.std((1, 3)) + 2)  # S S
    values = np.concatenate([np.log(means + 8), roughness[None]])
    return _standardised(values, enlarge(valid, (side, side)), CELL / per_cell)


def series_features(mean: np.ndarray, valid: np.ndarray) -> Features:
    """The mean over time of each band of a series on the 10 m grid.

    Args:
        mean: C N N over the valid frames.
        valid: N N bool, true where there is one.
    """
    return _standardised(mean, valid, CELL)


def _grid_pixels(cells: int) -> int:
    """Pixels along a cell of the finest grid that is small enough."""
    per_cell = LABEL_PIXELS
    while per_cell > 1 and per_cell * cells > MOST_SIDE:
        per_cell //= 2
    return per_cell


def _standardised(values: np.ndarray, valid: np.ndarray, metres: float) -> Features:
    """Features without mean and with deviation 1, 0 where invalid; those without variance go.

    Only the middle of a large grid is kept.
    """
    middle = slice(None)
    if len(valid) > MOST_SIDE:
        start = (len(valid) - MOST_SIDE) // 2
        middle = slice(start, start + MOST_SIDE)
    valid = valid[middle, middle]
    kept = []
    for band in values[:, middle, middle].astype(np.float64):
        inside = band[valid]
        if inside.size and inside.std() > 1e-6:
            kept.append(np.where(valid, (band - inside.mean()) / inside.std(), 0.0))
    return Features(np.array(kept).reshape(len(kept), *valid.shape), valid, metres)


def find_misfit(labels: np.ndarray, features: Features) -> Misfit | None:
    """Look for a place or an orientation at which the labels fit clearly better.

    Args:
        labels: 8N 8N uint8 of the whole tile, 255 where unlabelled.
        features: of the same ground.
    """
    weights = class_weights(labels, features)
    if len(weights) < 2 or not len(features.values):
        return None
    near = max(1, round(_limit(features.metres) / features.metres))
    side = len(features.valid)
    surface = explained(weights, features, reach=max(side // REACH, 2 * near))
    middle = len(surface) // 2
    rows, columns = np.indices(surface.shape) - middle
    stored = float(np.nanmax(np.where(np.hypot(rows, columns) <= near, surface, 0)))
    best = float(np.nanmax(surface))
    turned = best_turn(weights, features)
    is_better = turned.best - stored > TURNED_GAIN * turned.best
    if is_better and is_clear(turned.best, best):
        return Misfit(turned.words, stored, turned.best)
    row, column = np.unravel_index(np.nanargmax(surface), surface.shape)
    down = int(row) - middle
    right = int(column) - middle
    apart = np.hypot(rows - down, columns - right) > max(3 * near, 6)
    elsewhere = float(np.nanmax(np.where(apart, surface, 0)))
    is_inside = max(abs(down), abs(right)) < middle
    is_far = np.hypot(down, right) > 2 * near
    if is_inside and is_far and best - stored > GAIN * best and is_clear(best, elsewhere):
        words = (
            f"{down * features.metres:+.1f} m down and {right * features.metres:+.1f} m right of "
            "where they fit"
        )
        return Misfit(words, stored, best)
    return None


def shows_details(labels: np.ndarray, features: Features) -> bool:
    """Whether labels and image both have details below 10 m, so that a misfit is no chance.

    Args:
        labels: 8N 8N uint8 of the whole tile.
        features: of the same ground.
    """
    return features.metres < CELL and not _is_of_cells(labels)


def _is_of_cells(labels: np.ndarray) -> bool:
    """Whether the borders of the classes lie on one grid of 10 m, wherever that begins."""
    for across in (labels, labels.T):
        changes = (across[1:] != across[:-1]).sum(axis=1)  # 8N - 1
        phases = np.bincount(np.arange(len(changes)) % LABEL_PIXELS, changes, LABEL_PIXELS)
        if phases.max() < BLOCKY * phases.sum():
            return False
    return True


def is_clear(best: float, elsewhere: float) -> bool:
    """Whether a peak stands out from what is found elsewhere."""
    lead = best - elsewhere
    is_strong = best >= CLEAR and lead >= LEAD * best
    return is_strong or (best >= FAINT and lead >= FAINT_LEAD * best)


def _limit(metres: float) -> float:
    """Metres that labels may lie apart from the image."""
    if metres < CELL:
        return FINE_LIMIT
    return COARSE_LIMIT


def class_weights(labels: np.ndarray, features: Features) -> np.ndarray:
    """The share of each class in every pixel of the grid: K S S.

    Where there is one class only, what is unlabelled counts as the other.
    """
    per_cell = round(CELL / features.metres)
    block = LABEL_PIXELS // per_cell
    side = len(labels) // block
    layers = []
    for index in np.unique(labels):
        share = (labels == index).reshape(side, block, side, block).mean((1, 3))
        if share.mean() >= LEAST_SHARE:
            layers.append((int(index), share))
    layers.sort(key=lambda layer: -layer[1].mean())
    named = [share for index, share in layers if index != UNLABELLED][:MOST_CLASSES]
    if len(named) == 1:
        named = [share for _, share in layers]
    kept = len(features.valid)
    start = (side - kept) // 2
    inside = slice(start, start + kept)
    return np.array(named).reshape(len(named), side, side)[:, inside, inside]


def explained(weights: np.ndarray, features: Features, *, reach: int) -> np.ndarray:
    """Share of the image's variance between the classes, at every shift of the labels.

    Args:
        weights: K S S, the share of each class in a pixel.
        features: of the image.
        reach: greatest shift in pixels.

    Returns:
        (2 reach + 1, 2 reach + 1): element (reach + y, reach + x) for labels that lie y pixels down
        and x right of where they belong. NaN where too few labels lie on valid pixels.
    """
    side = len(features.valid)
    size = (side + reach, side + reach)  # so that no shift wraps

    def transform(image: np.ndarray) -> np.ndarray:
        return np.fft.rfft2(image, size)

    def cross(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        full = np.fft.irfft2(left * right.conj(), size)
        return np.roll(full, (reach, reach), (-2, -1))[..., : 2 * reach + 1, : 2 * reach + 1]

    classes = transform(weights)  # K S S/2
    all_classes = transform(weights.sum(0))
    number = cross(classes, transform(features.valid.astype(np.float64)))  # K R R
    total_number = number.sum(0)  # R R
    counted = number > LEAST_WEIGHT
    between = np.zeros(total_number.shape)
    total = np.zeros(total_number.shape)
    safe_total = np.maximum(total_number, LEAST_WEIGHT)
    for values in features.values:
        sums = cross(classes, transform(values))  # K R R
        offset = sums.sum(0) ** 2 / safe_total
        between += (sums**2 / np.maximum(number, LEAST_WEIGHT) * counted).sum(0) - offset
        total += cross(all_classes, transform(values**2)) - offset
    share = between / np.maximum(total, 1e-9)
    return np.where(total_number >= LEAST_OVERLAP * total_number.max(), share, np.nan)


def best_turn(weights: np.ndarray, features: Features) -> Misfit:
    """The orientation of the labels that explains most when it is undone."""
    best = Misfit("", 0.0, 0.0)
    for words, (quarters, is_mirrored) in ORIENTATIONS.items():
        undone = np.rot90(weights, -quarters, (-2, -1))
        if is_mirrored:
            undone = undone[..., ::-1]
        share = explained_in_place(undone, features)
        if share > best.best:
            best = Misfit(words, 0.0, share)
    return best


def explained_in_place(weights: np.ndarray, features: Features) -> float:
    """``explained`` for labels where they are."""
    inside = weights[:, features.valid]  # K n
    values = features.values[:, features.valid]  # F n
    number = inside.sum(1)  # K
    counted = inside[number > LEAST_WEIGHT]
    if not len(counted):
        return 0.0
    sums = values @ counted.T  # F K
    offset = (values @ inside.sum(0)) ** 2 / number.sum()  # F
    between = (sums**2 / counted.sum(1)).sum(1) - offset
    total = values**2 @ inside.sum(0) - offset
    return float(between.sum() / max(total.sum(), 1e-9))
