"""Say what a model's features are worth: k-NN and linear probes on labelled tiles.

The teacher stands beside random weights of the same architecture, statistics of the pixels, and
their principal components. Features, k and learning rate are chosen on the validation part; the
test part is scored once.
"""

import argparse
from pathlib import Path

from engine.evaluate.features import FEATURES
from engine.evaluate.picture import draw
from engine.evaluate.question import Question
from engine.evaluate.run import as_json, evaluate
from engine.evaluate.table import text
from engine.plot_file import check_plot, save_plot
from engine.pretrained.source import KINDS, TEACHER
from launch.options import add_json_option, add_plot_option
from launch.output import check_json, print_line_aside, show

EXAMPLES = """\
  skysense evaluate --model runs/demo/pretrain --data runs/demo/shards
  skysense evaluate --model exported --data shards --labels labels.csv --plot worth.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="PATH",
        help="run folder (its newest checkpoint), checkpoint, or folder of skysense export",
    )
    parser.add_argument("--data", required=True, metavar="FOLDER", help="shards, a folder or URL")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="CSV with the columns key,label[,split][,group]; several classes of a tile are joined "
        "by ';' (default: the land cover in the shards, cell by cell)",
    )
    parser.add_argument("--weights", choices=KINDS, default=TEACHER, help="which model (teacher)")
    parser.add_argument(
        "--sensors", nargs="+", default=(), metavar="KEY", help="sensors to show (all there are)"
    )
    parser.add_argument(
        "--features",
        nargs="+",
        default=FEATURES,
        metavar="NAME",
        help=f"features to choose from: {', '.join(FEATURES)} (all)",
    )
    parser.add_argument(
        "--zoom",
        nargs="+",
        type=float,
        default=(1.0,),
        metavar="F",
        help="sizes to choose from; 1: the sensor's own pixels, at most 512 along a side (1)",
    )
    parser.add_argument(
        "--grid", type=int, metavar="N", help="rows of label cells of a tile (those of stage 4)"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="repetitions (3)")
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="divide the groups of tiles N times instead of using the named test part (5 where "
        "there is none)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="tiles, evenly spaced (all)")
    parser.add_argument("--device", default="cpu", help="where the model runs (cpu)")
    parser.add_argument(
        "--batch_size", type=int, default=16, metavar="N", help="tiles at once (16)"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read tiles (0)"
    )
    add_json_option(parser)
    add_plot_option(parser)


def run(options: argparse.Namespace) -> None:
    """Print the table and the verdicts, and draw them."""
    check_json(options.json)
    check_plot(options.plot)
    question = Question(
        model=options.model,
        data=options.data,
        labels=options.labels,
        weights=options.weights,
        sensors=tuple(options.sensors),
        features=tuple(options.features),
        zooms=tuple(options.zoom),
        grid=options.grid,
        seeds=options.seeds,
        folds=options.folds,
        limit=options.limit,
        device=options.device,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    answer = evaluate(question, print_line_aside)
    show(text(answer), as_json(answer), options.json)
    save_plot(options.plot, lambda: draw(question, answer))
