"""Which parts of a trained model are wanted: sensors, bands, fusion, prompts, merges, experts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from models.errors import ModelError
from models.spec import ModalitySpec, ModelSpec, MoESpec

RANDOM_EXPERT = -1
MERGES = 3  # patch mergings of a backbone, one after each stage but the last
SWITCHES = ("fusion", "context", "prompts", "fixed_gate")


@dataclass(frozen=True)
class Sensor:
    """A sensor that starts from a trained one.

    It takes over the tokenizer, prompts, merges and fusion projection of the sensor ``like``.

    Raises:
        ModelError: the bands cannot be those of a sensor.
    """

    like: str
    bands: tuple[str, ...] | None = None  # in the order of the images; None: those of ``like``

    def __post_init__(self):
        if self.bands is not None and (isinstance(self.bands, str) or not self.bands):
            raise ModelError(
                f"bands of a sensor like {self.like}: expected names such as ('R', 'G', 'B'), "
                f"found {self.bands!r}; leave bands out to keep those of {self.like}"
            )

    def modality(self, like: ModalitySpec, merge: tuple[bool, bool, bool]) -> ModalitySpec:
        """The specification of this sensor.

        Args:
            like: that of the trained sensor.
            merge: after stages 1, 2, 3.
        """
        bands = like.bands
        if self.bands is not None:
            bands = len(self.bands)
        return replace(like, bands=bands, merge=merge)


@dataclass(frozen=True)
class Choice:
    """What is wanted of a trained model (supplement, section B and tables 8, 10, 14).

    Raises:
        ModelError: a value has a type that says nothing about a model.
    """

    modalities: Sequence[str] | Mapping[str, Sensor] | None = None  # None: all
    fusion: bool = True  # the temporal and multi-modal fusion transformer
    context: bool = True  # geo-context prototypes; only with fusion
    prompts: bool = True
    # modality -> whether patches merge after stages 1, 2, 3
    merge: Mapping[str, tuple[bool, bool, bool]] = field(default_factory=dict)
    fixed_gate: bool = False  # the routing gates do not train
    # keep this expert of each MoE block as a plain network; -1: draw one for each block
    expert: int | None = None
    seed: int = 0  # of the drawn experts

    def __post_init__(self):
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ModelError(f"{name}: expected True or False, found {getattr(self, name)!r}")
        if isinstance(self.modalities, str):
            raise ModelError(
                f"modalities: expected several names, found one string; write "
                f"({self.modalities!r},) for one modality"
            )
        if isinstance(self.modalities, Mapping):
            for name, sensor in self.modalities.items():
                if not isinstance(sensor, Sensor):
                    raise ModelError(
                        f"modalities {name}: expected a Sensor, found {sensor!r}; "
                        "write Sensor(like=...) with the trained sensor that it starts from"
                    )
        self._check_merge()

    def _check_merge(self) -> None:
        if not isinstance(self.merge, Mapping):
            raise ModelError(
                f"merge: expected flags by modality, such as {{'hr': (True, False, False)}}, "
                f"found {self.merge!r}"
            )
        for name, flags in self.merge.items():
            right = isinstance(flags, tuple | list) and len(flags) == MERGES
            if not right or not all(isinstance(flag, bool) for flag in flags):
                raise ModelError(
                    f"merge {name}: expected True or False after stages 1, 2 and 3, found {flags!r}"
                )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "Choice":
        """The choice of some keyword arguments.

        Raises:
            ModelError: an argument is unknown, or its value is wrong.
        """
        known = [entry.name for entry in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ModelError(
                f"load: expected choices among {', '.join(known)}, found {', '.join(unknown)}"
            )
        return cls(**options)

    def sensors(self, spec: ModelSpec) -> dict[str, Sensor]:
        """The sensors wanted, by name.

        Args:
            spec: of the trained model.

        Raises:
            ModelError: none is wanted, or one that the trained model does not have.
        """
        if isinstance(self.modalities, Mapping):
            wanted = dict(self.modalities)
        else:
            names = tuple(spec.modalities) if self.modalities is None else self.modalities
            wanted = {name: Sensor(name) for name in names}
        trained = ", ".join(spec.modalities)
        if not wanted:
            raise ModelError(
                f"modalities: expected some of the trained ones, {trained}, found none"
            )
        unknown = sorted({sensor.like for sensor in wanted.values()} - set(spec.modalities))
        if unknown:
            raise ModelError(
                f"modalities: expected some of the trained ones, {trained}, found "
                f"{', '.join(unknown)}; give a new sensor as Sensor(like=...) with one of these"
            )
        return wanted

    def specification(self, spec: ModelSpec) -> ModelSpec:
        """The specification of the model wanted.

        Args:
            spec: of the trained model.

        Raises:
            ModelError: the trained model does not have what is wanted.
        """
        sensors = self.sensors(spec)
        strange = sorted(set(self.merge) - set(sensors))
        if strange:
            raise ModelError(
                f"merge: expected some of the modalities {', '.join(sensors)}, "
                f"found {', '.join(strange)}"
            )
        modalities = {}
        for name, sensor in sensors.items():
            like = spec.modalities[sensor.like]
            first, second, third = self.merge.get(name, like.merge)
            modalities[name] = sensor.modality(like, (first, second, third))
        prompts = spec.prompts
        if not self.prompts:
            prompts = (0,) * len(spec.prompts)
        fusion = None
        context = None
        if self.fusion:
            fusion = spec.fusion
            if self.context:
                context = spec.context
        return spec.variant(
            modalities=modalities,
            moe=self._experts(spec.moe),
            prompts=prompts,
            fusion=fusion,
            context=context,
        )

    def _experts(self, moe: MoESpec | None) -> MoESpec | None:
        """The MoE settings of the wanted model."""
        if self.expert is None:
            if moe is None:
                return None
            return replace(moe, fixed_gate=self.fixed_gate)
        if moe is None:
            raise ModelError(
                f"expert: expected a trained model with experts, found none; leave out "
                f"expert={self.expert}"
            )
        if not RANDOM_EXPERT <= self.expert < moe.experts:
            raise ModelError(
                f"expert: expected 0 to {moe.experts - 1}, or -1 for a random one, "
                f"found {self.expert}"
            )
        return None
