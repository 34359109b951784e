"""The stream: the same batches whatever the workers, the ranks, or the step it starts at."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.writer import ShardOptions, write_shards
from data.stream.batches import open_stream
from data.stream.settings import GLOBAL, LOCAL
from tests.unit import tiles
from tests.unit.tiles import make_tile

# Each sensor and view size has pixels of its own, none of them those of the tile.
UNLIKE = replace(
    tiles.SETTINGS.views,
    global_pixels={"hr": 96, "ms": 8, "sar": 12},
    local_pixels={"hr": 64, "ms": 5, "sar": 3},
)
SETTINGS = replace(tiles.SETTINGS, views=UNLIKE)
TILES = [
    make_tile(
        f"t{i}",
        i,
        modalities=(("hr", "ms", "sar"), ("hr",), ("ms", "sar"))[i % 3],
        labels=i % 2 == 0,
    )
    for i in range(7)
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream")
    write_shards(TILES, path, ShardOptions(samples_per_shard=3))
    return path


@pytest.fixture
def dataset(path):
    return ShardDataset.open(path)


def batches(
    dataset, start=0, stop=3, rank=0, world=1, seed=1, batch_size=4, samples=None, **changes
):
    stream = open_stream(
        dataset,
        replace(SETTINGS, **changes),
        seed=seed,
        batch_size=batch_size,
        steps=range(start, stop),
        samples=samples,
        rank=rank,
        world_size=world,
    )
    return list(stream)


def flat(batch):
    """All tensors of a batch by name."""
    found = {"region": batch.region}
    for size, views in batch.views.items():
        found |= {f"{size}.labels": views.labels, f"{size}.affine": views.affine}
        found |= {f"{size}.images.{name}": x for name, x in views.images.items()}
        found |= {f"{size}.valid.{name}": x for name, x in views.valid.items()}
        found |= {f"{size}.days.{name}": x for name, x in views.days.items()}
        found |= {f"{size}.seen.{name}": x for name, x in views.seen.items()}
    return found


def assert_equal(left, right):
    assert [b.step for b in left] == [b.step for b in right] and [b.keys for b in left] == [
        b.keys for b in right
    ]
    for one, two in zip(left, right, strict=True):
        assert one.quarantined == two.quarantined
        tensors = flat(one)
        others = flat(two)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(dataset, workers):
    assert_equal(batches(dataset, workers=0), batches(dataset, workers=workers))


def test_threads_of_the_main_process_change_nothing(dataset):
    views = replace(
        SETTINGS.views, global_pixels={"hr": 512, "ms": 16, "sar": 16}
    )  # large enough for torch to split a mean over threads
    expected = batches(dataset, stop=2, views=views)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert_equal(expected, batches(dataset, stop=2, views=views))
        assert torch.get_num_threads() == (2 if threads == 1 else 1)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_in_the_middle_continues_the_run(dataset, workers):
    assert_equal(batches(dataset)[2:], batches(dataset, start=2, workers=workers))


def test_another_batch_size_goes_on_behind_the_samples_taken(dataset):
    small = batches(dataset, stop=6, batch_size=2)
    [large] = batches(dataset, start=5, stop=6, batch_size=4, samples=8)
    assert large.keys == small[4].keys + small[5].keys
    for name, x in flat(large).items():
        assert torch.equal(x, torch.cat([flat(small[4])[name], flat(small[5])[name]]))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_joined_are_the_single_process(dataset, world):
    whole = batches(dataset, stop=4)
    parts = [batches(dataset, stop=4, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert [key for part in parts for key in part[step].keys] == batch.keys
        for name, x in flat(batch).items():
            assert torch.equal(x, torch.cat([flat(part[step])[name] for part in parts]))


def test_a_stream_can_be_read_again_and_has_a_length(dataset):
    stream = open_stream(dataset, SETTINGS, seed=1, batch_size=4, steps=range(2, 4))
    assert len(stream) == 2
    assert_equal(list(stream), list(stream))
    assert [batch.step for batch in stream] == [2, 3]


def test_each_use_of_a_sample_is_cut_anew(dataset):
    found = {}
    for batch in batches(dataset, stop=7):  # 28 slots: 4 uses of each sample
        for slot, key in enumerate(batch.keys):
            found.setdefault(key, set()).add(batch.views[GLOBAL].affine[slot].numpy().tobytes())
    assert all(len(views) == 4 for views in found.values()) and len(found) == 7


def test_the_seed_of_the_run_changes_order_and_views(dataset):
    one = batches(dataset, stop=2)
    two = batches(dataset, stop=2, seed=2)
    assert [batch.keys for batch in one] != [batch.keys for batch in two]


def test_all_views_show_the_same_frames(dataset):
    views = {
        "global_scale": (1.0, 1.0),
        "local_scale": (1.0, 1.0),
        "local_pixels": UNLIKE.global_pixels,
        "flips": False,
        "quarter_turns": False,
    }
    for batch in batches(dataset, views=replace(SETTINGS.views, **views)):
        for name in ("ms", "sar"):
            first = batch.views[GLOBAL].images[name][:, :1]
            assert (batch.views[GLOBAL].images[name] == first).all()
            assert (batch.views[LOCAL].images[name] == first).all()


def test_samples_get_their_region_and_days(dataset):
    regions = {tile.key: dataset.regions.lookup(tile.lon, tile.lat) for tile in TILES}
    for batch in batches(dataset):
        assert batch.region.tolist() == [regions[key] for key in batch.keys]
        for views in batch.views.values():
            assert all(((days >= 0) & (days < 365)).all() for days in views.days.values())


def test_each_view_has_dates_of_its_own_and_hides_other_frames(dataset):
    days = []
    seen = []
    for batch in batches(dataset, stop=4):
        views = batch.views[GLOBAL]
        both = views.valid["ms"].flatten(3).any(3).all(1)  # B T, frames that both views have
        days += (views.days["ms"][:, 0] - views.days["ms"][:, 1])[both].tolist()
        seen += (views.seen["ms"][:, 0] != views.seen["ms"][:, 1])[both].tolist()
    apart = np.abs(days)
    apart = np.minimum(apart, 365 - apart)
    assert 0 < apart.max() <= 10 and (apart > 0).mean() > 0.7
    assert 0 < np.mean(seen) < 0.6


def test_random_state_of_the_process_is_left_alone(dataset):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    batches(dataset, workers=0, stop=2)
    batches(dataset, workers=2, stop=2)
    assert (
        torch.equal(torch.get_rng_state(), before[0])
        and (np.random.get_state()[1] == before[1]).all()
    )
    torch.manual_seed(99)
    assert_equal(batches(dataset, stop=2), batches(dataset, workers=2, stop=2))


@pytest.fixture
def damaged(tmp_path):
    """A dataset whose samples t2 and t5 (both ms and sar) have a flipped bit in every sar frame."""
    write_shards(TILES, tmp_path, ShardOptions(samples_per_shard=3))
    dataset = ShardDataset.open(tmp_path)
    for key in ("t2", "t5"):
        sample = dataset.keys().index(key)
        member = dataset.entry(sample).members["sar"]
        tar = tmp_path / f"shard-{sample // 3:06d}.tar"
        data = bytearray(tar.read_bytes())
        for offset, _, _ in member.frames:
            data[member.offset + offset + 5] ^= 1
        tar.write_bytes(data)
    return ShardDataset.open(tmp_path, SETTINGS.store)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_bad_sample_stops_the_run_by_default(damaged, workers):
    with pytest.raises(InputError) as error:
        batches(damaged, workers=workers)
    assert (
        "CRC32C" in str(error.value)
        and "'sar'" in str(error.value)
        and "\n" not in str(error.value)
    )


def test_bad_samples_are_replaced_and_recorded_whatever_workers_and_ranks(damaged):
    whole = batches(damaged, max_bad_samples=2, stop=4)
    assert_equal(whole, batches(damaged, max_bad_samples=2, stop=4, workers=2))
    parts = [batches(damaged, max_bad_samples=2, stop=4, rank=rank, world=2) for rank in range(2)]
    records = [record for batch in whole for record in batch.quarantined]
    assert {record["key"] for record in records} == {"t2", "t5"} and len(
        records
    ) >= 4  # 2 uses of each
    for step, batch in enumerate(whole):
        assert not {"t2", "t5"} & set(batch.keys)
        assert batch.keys == parts[0][step].keys + parts[1][step].keys
        assert batch.quarantined == parts[0][step].quarantined + parts[1][step].quarantined
        for record in batch.quarantined:
            assert (
                record["step"] == step
                and record["substitute"] in batch.keys
                and "CRC32C" in record["reason"]
            )


def test_one_bad_sample_too_many_stops_the_run(damaged):
    with pytest.raises(InputError, match="CRC32C"):
        batches(damaged, max_bad_samples=1, stop=4)


def test_good_samples_do_not_feel_the_bad_ones(damaged, dataset):
    for good, mixed in zip(batches(dataset), batches(damaged, max_bad_samples=2)):
        same = [slot for slot, key in enumerate(good.keys) if key not in ("t2", "t5")]
        assert [good.keys[slot] for slot in same] == [mixed.keys[slot] for slot in same]
        tensors = flat(good)
        others = flat(mixed)
        assert all(torch.equal(tensors[name][same], others[name][same]) for name in tensors)


def test_a_dataset_without_any_good_sample_ends_with_one_line(tmp_path):
    write_shards(TILES[:1], tmp_path)
    dataset = ShardDataset.open(tmp_path, SETTINGS.store)
    (tmp_path / "shard-000000.tar").write_bytes(b"")
    with pytest.raises(InputError, match="found 0 bytes"):
        batches(dataset, max_bad_samples=100, workers=1)


@pytest.mark.parametrize(
    "changes,options",
    [
        ({"frames": {"hr": 2}}, {}),
        ({"frames": {"thermal": 1}}, {}),
        ({"frames": {"ms": 0}}, {}),
        ({"workers": -1}, {}),
        ({"workers": 1, "prefetch": 0}, {}),
        ({}, {"world": 3}),
        ({"augment": replace(SETTINGS.augment, blur_sigma=(0.0, 1.0))}, {}),
        ({}, {"start": 5, "stop": 4}),
        ({}, {"start": -1}),
    ],
)
def test_impossible_settings_are_refused_in_one_line(dataset, changes, options):
    with pytest.raises(InputError) as error:
        batches(dataset, **changes, **options)
    assert "\n" not in str(error.value)


def test_a_modality_can_be_left_out(dataset):
    batch = batches(dataset, stop=1, frames={"ms": 2})[0]
    views = batch.views[GLOBAL]
    assert set(views.images) == set(views.days) == set(views.seen) == {"ms"}
