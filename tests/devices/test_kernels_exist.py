"""Every operator of the classifier's and the detector's composed graphs has a kernel for GPU and Ascend.

MindSpore's own plugins select the kernels, with the driver's libraries replaced (``absent_driver.py``). For the GPU the
selection includes the types; an operator without a kernel falls back to the CPU, which the log shows. For Ascend the
operator is found among CANN's (aclnn) or the graph engine's (aclop); only CANN knows which types those support.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devices import absent_driver
from msg_ms.ops.backend import FUSED as FUSED_OPERATORS

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("readelf")), reason="needs gcc and readelf")


@pytest.fixture(scope="module", params=["GPU", "Ascend"])
def device(request, tmp_path_factory):
    library = {"GPU": "libmindspore_gpu.so.11.6", "Ascend": "libmindspore_ascend.so.2"}[request.param]
    if not (absent_driver.PLUGIN / library).exists():
        pytest.skip(f"this wheel of MindSpore has no {request.param} plugin")  # the one for aarch64 has Ascend's alone
    environment = absent_driver.environment(request.param, tmp_path_factory.mktemp(request.param))

    def select(name: str) -> str:
        script = Path(__file__).parent / "select_kernels.py"
        done = subprocess.run(
            [sys.executable, str(script), request.param, name],
            capture_output=True, encoding="utf-8", env=environment, timeout=600, errors="replace",
        )  # fmt: skip
        return done.stdout + done.stderr

    return request.param, select


FUSED = set(FUSED_OPERATORS["Ascend"].values())
FUSED_TRAINING = {"BatchMatMul", "Softmax", "GeluGradExt", "LayerNormGradExt", *FUSED}
COMPOSED_TRAINING = {"BatchMatMul", "Softmax", "Erfc", "LayerNorm", "LayerNormGrad"}
DETECTOR = {"BatchMatMul", "Conv2D", "TopK", "GatherD", "NMSWithMask", "GeluExt", "LayerNormExt"}


@pytest.mark.parametrize(
    "graph, operators",
    [
        ("O0", FUSED_TRAINING),
        pytest.param("O2", FUSED_TRAINING, marks=pytest.mark.slow),
        pytest.param("O1_composed", COMPOSED_TRAINING, marks=pytest.mark.slow),
        pytest.param("detector", DETECTOR, marks=pytest.mark.slow),
        pytest.param("detector_O0", DETECTOR, marks=pytest.mark.slow),
        pytest.param("detector_O2", DETECTOR, marks=pytest.mark.slow),
    ],
)
def test_every_operator_has_a_kernel(device, graph, operators):
    target, select = device
    log = select(graph)
    if target == "GPU":
        assert log.startswith("compiled"), log[-3000:]
        assert "backoff on CPU" not in log
    else:
        # Selecting kernels needs no CANN operator library; building them, which comes next, does.
        selected = dict(re.findall(r"CollectOpSelectedType\] (\w+) select (\w+) kernel", log))
        counts = re.search(r"PrintOpSelectedNum\] (\d+ \d+ \d+ \d+ \d+ \d+ \d+)", log)
        assert counts, log[-3000:]  # the selection reached the last operator
        assert set(selected.values()) <= {"aclnn", "aclop"}
        assert operators <= set(selected), sorted(selected)
        assert "composed" not in graph or not FUSED & set(selected)


def test_selection_can_refuse(device):
    target, select = device
    if target == "GPU":
        assert select("erf_of_int8").startswith("refused:")
        assert select("bfloat16_product").startswith("refused:")
        assert "backoff on CPU" in select("eigenvalues")
    assert select("softmax").startswith("compiled")
