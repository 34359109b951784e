"""The endless stream of batches.

A step's content follows from seed, dataset and the samples before it alone: never from the number
of ranks, the worker processes, or the step at which the run was started.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from data.errors import InputError
from data.seeded import generator
from data.stream.collate import empty_batch, place
from data.stream.cut import cut
from data.stream.decode import Raw, Source, read_raw, unpack
from data.stream.draw import SampleDraw, draw_sample
from data.stream.mixture import Mixture
from data.stream.order import Order, SampleUse
from data.stream.sample import Batch, CutSample
from data.stream.settings import DataSettings
from data.stream.workers import on_workers

# Tries to replace one bad sample. More bad samples in a row mean that the dataset is lost.
SUBSTITUTES = 32


def open_stream(
    dataset: Source,
    settings: DataSettings,
    *,
    seed: int,
    batch_size: int,
    steps: range,
    samples: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> "Stream":
    """Batches of some consecutive steps for one rank.

    Args:
        dataset: a mixture or one sharded dataset.
        settings: how samples are read, cut and augmented.
        seed: of the run.
        batch_size: global samples a step; the rank gets its slice of them.
        steps: consecutive steps, ``range(start, stop)``.
        samples: how many samples the steps before them took; None: this batch size in each.
        rank: of this process among the data-parallel ranks.
        world_size: number of data-parallel ranks.

    Raises:
        InputError: the settings cannot work; while iterating: more samples are bad than
            ``settings.max_bad_samples`` allows.
    """
    problem = settings.stream_problem()
    if problem is not None:
        raise InputError(problem)
    if not 0 <= steps.start <= steps.stop or steps.step != 1:
        raise InputError(
            f"stream: expected consecutive steps with 0 <= start <= stop, "
            f"found start {steps.start}, stop {steps.stop} and stride {steps.step}"
        )
    mixture = dataset
    if not isinstance(mixture, Mixture):
        mixture = Mixture([mixture])
    origin = 0
    if samples is not None:
        origin = samples - steps.start * batch_size
    order = Order(seed, mixture.parts, batch_size=batch_size, origin=origin)
    return Stream(Steps(mixture, settings, order, rank=rank, world_size=world_size), steps)


class Stream:
    """Iterable of ``Batch``; each ``iter`` starts at the first step again.

    ``len`` is the number of steps. In memory are at most ``workers * prefetch`` batches (two a
    worker at least), and the bytes of ``read_ahead`` samples a worker.
    """

    def __init__(self, dataset: "Steps", steps: range):
        self.dataset = dataset
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yield batches in step order. Closed before its end, it ends the processes too.

        Raises:
            InputError: more samples are bad than the settings allow; the message lists them.
        """
        settings = self.dataset.settings
        reasons: dict[str, str] = {}  # key of a bad sample -> why it is bad
        results = on_workers(
            self.dataset.result,
            self.steps,
            count=settings.workers,
            ahead=settings.prefetch,
            patience=settings.loader_patience,
        )
        for result in results:
            # An error comes as a value: raised in a worker, it would bring the worker's traceback.
            if isinstance(result, InputError):
                raise result
            for record in result.quarantined:
                reasons[record["key"]] = record["reason"]
                if len(reasons) > settings.max_bad_samples:
                    raise InputError(_too_many_bad(reasons, settings.max_bad_samples))
            yield result


def _too_many_bad(reasons: dict[str, str], allowed: int) -> str:
    """Why a run ends over its bad samples, one line each."""
    if len(reasons) == 1:
        return next(iter(reasons.values()))
    lines = [f"{len(reasons)} samples are bad, data.max_bad_samples allows {allowed}:"]
    for key, reason in reasons.items():
        lines.append(f"  {key}: {reason}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Failure:
    """A sample that could not be read."""

    sample: int
    error: InputError


Reading = Callable[[], tuple[SampleDraw, Raw]]  # waits for the bytes; raises InputError


class Steps:
    """Whole steps: step number -> this rank's batch."""

    def __init__(
        self, dataset: Mixture, settings: DataSettings, order: Order, *, rank: int, world_size: int
    ):
        self.dataset = dataset
        self.settings = settings
        self.order = order
        self.rank = rank
        self.world_size = world_size
        self.first_slot, self.size = order.share(rank=rank, world_size=world_size)

    def result(self, step: int) -> Batch | InputError:
        """This rank's batch of a step, or the InputError that says why it cannot be made."""
        threads = torch.get_num_threads()
        # As in a worker process: sums split over threads would differ in the last bit.
        torch.set_num_threads(1)
        try:
            return self._batch(step)
        except InputError as error:
            return error
        finally:
            torch.set_num_threads(threads)

    def _batch(self, step: int) -> Batch:
        """This rank's batch of a step."""
        counts_before = self.dataset.counts
        batch = empty_batch(step, self.size, self.settings)
        uses = self.order.slice(step, rank=self.rank, world_size=self.world_size)
        for slot, reading in enumerate(self._readings(uses)):
            sample, failures = self._cut_or_substitute(step, slot, uses[slot], reading)
            place(batch, slot, sample)
            for failure in failures:
                batch.quarantined.append(self._quarantine_record(step, failure, sample))
        batch.reads = dict(self.dataset.counts - counts_before)
        return batch

    def _readings(self, uses: list[SampleUse]) -> Iterator[Reading]:
        """One reading a slot, in order.

        At most ``read_ahead`` of them are under way beyond the one handed out.
        """
        depth = self.settings.read_ahead
        if depth == 0:
            for use in uses:
                yield partial(self._read, use)
            return
        with ThreadPoolExecutor(depth) as pool:
            waiting: deque[Future] = deque()
            for use in uses:
                waiting.append(pool.submit(self._read, use))
                if len(waiting) > depth:
                    yield waiting.popleft().result
            for future in waiting:
                yield future.result

    def _read(self, use: SampleUse) -> tuple[SampleDraw, Raw]:
        """Draw the choices for a use of a sample, and read the bytes that they need."""
        draw = draw_sample(
            self.dataset, self.settings, seed=self.order.seed, sample=use.sample, use=use.use
        )
        return draw, read_raw(self.dataset, use.sample, draw.frames, level=draw.level)

    def _cut_or_substitute(
        self, step: int, slot: int, use: SampleUse, reading: Reading
    ) -> tuple[CutSample, list[Failure]]:
        """The sample of a slot, or else a substitute, and the samples that failed.

        Substitutes follow from the seed and the place in the order alone.
        """
        position = self.order.position(step) + self.first_slot + slot
        rng = generator(self.order.seed, "substitute", position)
        candidates = self.order.substitutes(use.sample)
        sample = use.sample
        failures: list[Failure] = []
        while len(failures) < SUBSTITUTES:
            try:
                draw, raw = reading()
                return cut(draw, unpack(raw), self.settings.views), failures
            except InputError as error:
                failures.append(Failure(sample, error))
            sample = candidates[int(rng.integers(len(candidates)))]
            reading = partial(self._read, SampleUse(sample, use.use))
        raise failures[0].error

    def _quarantine_record(self, step: int, failure: Failure, substitute: CutSample) -> dict:
        """What the quarantine file keeps of a replaced sample."""
        return {
            "key": self._key(failure.sample),
            "reason": str(failure.error),
            "step": step,
            "substitute": substitute.draw.key,
        }

    def _key(self, sample: int) -> str:
        """Key of a sample, or its number if its index entry cannot be read."""
        try:
            return self.dataset.entry(sample).key
        except InputError:
            return f"sample {sample}"
