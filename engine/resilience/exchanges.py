"""The last exchanges of a rank with the others, of torch's flight recorder.

When ranks wait for each other for ever, one of them has not started what the others have: the file
shows each group's last exchange that was asked for, that has begun, and that is done.
"""

import json
import sys
import threading
from pathlib import Path

from data.files import write_whole

SHOWN = 20  # exchanges, the last ones; the recorder keeps some thousand
_PATIENCE = 1.0  # seconds; the recorder may wait for a thread that waits for ever


def exchanges_file(folder: Path, rank: int) -> Path:
    """Where a rank's last exchanges are written."""
    return folder / f"exchanges-{rank:05d}.json"


def write_exchanges(folder: Path, rank: int) -> None:
    """Write the last exchanges of this process, if it has joined others.

    Raises:
        OSError: The file cannot be written.
    """
    if "torch.distributed" not in sys.modules:  # it has joined nobody, and torch is slow to import
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    answers: list[dict] = []
    thread = threading.Thread(target=lambda: answers.append(_recorded()), daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if answers:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(exchanges_file(folder, rank), json.dumps(answers[0], indent=1))


def _recorded() -> dict:
    """What the recorder of the backend knows: groups, how far each is, the last exchanges."""
    import torch.distributed as dist
    from torch._C import _distributed_c10d as recorder

    name = "_dump_fr_trace_json"
    if dist.get_backend() == "nccl":
        name = "_dump_nccl_trace_json"
    dump = getattr(recorder, name)  # torch's type stubs leave it out
    trace = json.loads(dump(includeCollectives=True, onlyActive=False))
    return {
        "groups": trace["pg_config"],
        "progress": trace["pg_status"],
        "last": trace.get("entries", [])[-SHOWN:],
    }
