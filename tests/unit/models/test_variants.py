"""The named models: what they change, and that the two small ones train with every mechanism on."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from data.tiles.classes import NAMES
from engine.config.load import load
from engine.training.objective import Objective, to_views
from models.errors import ModelError
from models.initialise import initialise
from models.pretraining.model import Pretraining
from models.reducer import Reducer
from models.spec import ModelSpec
from models.variants import VARIANTS, name_of, named
from tests.paths import ROOT
from tests.unit.engine.cost.test_count import whole_batch

PAPER = ROOT / "ds_configs" / "paper_128gpu.json"
OURS = ("base", "small")


def changed(spec: ModelSpec) -> dict:
    """Fields that differ from the paper's model, or of the MoE alone."""

    def differences(mine, theirs):
        return {name: value for name, value in vars(mine).items() if value != getattr(theirs, name)}

    paper = ModelSpec.skysense_v2()
    found = differences(spec, paper)
    return differences(spec.moe, paper.moe) if found.keys() == {"moe"} and spec.moe else found


@pytest.mark.parametrize(
    "name, expected",
    [
        ("skysense_v2", {}),
        ("dense", {"moe": None}),
        ("experts_4", {"experts": 4}),
        ("experts_16", {"experts": 16}),
        ("moe_last_2", {"blocks": (22, 23)}),
        ("moe_last_4", {"blocks": (20, 21, 22, 23)}),
        ("moe_last_8", {"blocks": (16, 17, 18, 19, 20, 21, 22, 23)}),
        ("moe_spread", {"blocks": (3, 7, 11, 15, 19, 23)}),
        ("queries_4", {"queries": 4}),
        ("queries_8", {"queries": 8}),
        ("queries_24", {"queries": 24}),
    ],
)
def test_an_ablation_changes_one_thing(name, expected):
    assert changed(named(name)) == expected


def test_names_are_found_again():
    assert {name: name_of(variant.spec) for name, variant in VARIANTS.items()} == {
        name: name for name in VARIANTS
    }
    assert name_of(ModelSpec(queries=5)) is None


@pytest.mark.parametrize(
    "name, hint",
    [
        ("experts_12", "did you mean 'experts_16'"),
        ("smal", "did you mean 'small'"),
        ("xyz", ", ".join(VARIANTS)),
    ],
)
def test_an_unknown_name_gets_a_hint(name, hint):
    with pytest.raises(ModelError, match=name) as caught:
        named(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", OURS)
def test_our_own_sizes_say_so_and_lack_no_mechanism(name):
    paper, spec = named("skysense_v2"), named(name)
    assert VARIANTS[name].about.startswith("not the paper's")
    assert None not in (spec.moe, spec.fusion, spec.context) and spec.prompts == paper.prompts
    assert spec.moe.blocks == tuple(range(sum(spec.depths)))[-len(spec.moe.blocks) :]
    # the same data and class embeddings serve them
    assert (spec.modalities, spec.head_dim, spec.text_width) == (
        paper.modalities,
        paper.head_dim,
        paper.text_width,
    )
    assert {width % spec.head_dim for width in spec.widths} == {0}


@pytest.mark.parametrize("sides", [(512, 16, 16), (320, 32, 32), (224, 8, 24)])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_configuration_takes_it_with_views_of_any_sizes(tmp_path, name, sides):
    pixels = dict(zip(("hr", "ms", "sar"), sides))
    model = json.loads(json.dumps(asdict(named(name))))
    content = {
        "train_batch_size": 8,
        "skysense": {
            "base": str(PAPER),
            "ep_size": 1,
            "model": model,
            "data": {"views": {"global_pixels": pixels}},
        },
    }
    (tmp_path / "run.json").write_text(json.dumps(content))
    found = load(tmp_path / "run.json", world_size=8).settings
    assert found.model == named(name) and found.data.views.global_pixels == pixels


@pytest.mark.parametrize("name", OURS)
def test_each_has_a_configuration(name):
    assert load(ROOT / "ds_configs" / f"{name}_one_gpu.json", world_size=1).settings.model == named(
        name
    )


def test_small_trains_every_weight():
    """A real step without optimizer. What starts at zero is opened: behind it nothing would get a
    gradient."""
    views = [
        'skysense.data.views.global_pixels={"hr":256,"ms":16,"sar":8}',
        "skysense.data.views.local_views=1",
        "skysense.ep_size=1",
    ]
    settings = replace(load(PAPER, views).settings, model=named("small"))
    student, teacher = (Pretraining(settings.model) for _ in range(2))
    for model in (student, teacher):
        initialise(model, 0)
    teacher.eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.eq(0).all():
                parameter.fill_(0.1)
    text = torch.randn(
        len(NAMES), settings.model.text_width, generator=torch.Generator().manual_seed(0)
    )
    batch = whole_batch(settings)
    inputs = to_views(batch, torch.device("cpu"))
    outputs, targets = student(inputs), teacher(inputs)
    for found in outputs.features.values():
        assert set(found.maps) == {"hr", "ms", "sar", "fused"}
        assert all(maps.isfinite().all() for maps in found.maps.values())
    assert len(outputs.routings) == 4 and all(routing.balance > 0 for routing in outputs.routings)
    objective = Objective(
        settings.loss, student=student, teacher=teacher, text=text, reducer=Reducer()
    )
    losses = objective(outputs, targets, batch, temperature=0.07)
    assert losses.total.isfinite() and all(value.isfinite() for value in losses.terms.values())
    losses.total.backward()
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    assert all(
        gradient is not None and gradient.isfinite().all() for gradient in gradients.values()
    )
    idle = {name for name, gradient in gradients.items() if not gradient.any()}
    assert {
        name for name in idle if ".deepspeed_experts." not in name
    } == set()  # an expert may get no token
    before = student.trunk.context.prototypes.clone()
    student.update_context(outputs, Reducer())
    assert not torch.equal(before, student.trunk.context.prototypes)
