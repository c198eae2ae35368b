"""Several CPU processes under msrun, MindSpore's own launcher."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from reference import SMALL


def test_an_overflow_on_one_rank_is_skipped_by_all(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "MODEL": json.dumps(SMALL), "PATH": f"{binaries}:{os.environ['PATH']}"}
    line = [binaries / "msrun", "--worker_num=2", "--local_worker_num=2", "--join=True", f"--master_port={port}"]
    done = subprocess.run(
        [*line, ROOT / "tests" / "ranks" / "overflow.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]  # weights as well, although the images differ
    first, spoilt, last = ranks[0]
    assert [update["finite"] for update in ranks[0]] == [True, False, True]
    assert [update["scale"] for update in ranks[0]] == [8.0, 4.0, 4.0]
    assert first["weights"] == spoilt["weights"] != last["weights"]
