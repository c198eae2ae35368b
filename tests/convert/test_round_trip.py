"""Both directions, bit for bit: every format and type, and the paper's variants if PyTorch is installed."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from support.reference import EXTRA, FIXTURES

import msg_ms
from msg_ms import MSGTransformer
from msg_ms.checkpoint import load_weights, parameters_by_name, read_checkpoint, read_safetensors, to_numpy
from msg_ms.checkpoint.dtypes import DTYPES, cast, same_values
from msg_ms.commands.convert_torch_ckpt import Options, convert
from msg_ms.convert import export_state_dict, read_torch_file, write_torch_file
from msg_ms.models.variants import VARIANTS

FORMS = [FIXTURES / f"{form}.pth" for form in ("ckpt_epoch_3", "legacy", "ddp", "half", "bfloat16")]
FORMS += sorted(EXTRA.glob("upstream_*.pth")) if EXTRA else []
TO_MINDSPORE = dict(verify=True, dtype="keep")
TO_TORCH = dict(verify=True, reverse=True)


def read(path):
    return (read_safetensors if path.suffix == ".safetensors" else read_torch_file)(path).state


def same_bits(one, other):
    return (
        one.keys() == other.keys()
        and all(one[n].dtype == other[n].dtype and one[n].shape == other[n].shape for n in one)
        and all(one[n].tobytes() == other[n].tobytes() for n in one)
    )


def with_int64_indices(state):
    """Return the state with indices of int64, as in the paper's code, even if the model was cast to half precision."""
    return {n: v.astype(np.int64) if n.endswith("relative_position_index") else v for n, v in state.items()}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_every_reference_checkpoint_comes_back_bit_for_bit(path, tmp_path):
    expected = with_int64_indices(read(path))
    for between, after in ((".ckpt", ".pth"), (".safetensors", ".bin"), (".ckpt", ".safetensors"), (".ckpt", ".pt")):
        convert(path, tmp_path / f"a{between}", Options(**TO_MINDSPORE))
        convert(tmp_path / f"a{between}", tmp_path / f"b{after}", Options(**TO_TORCH))
        assert same_bits(read(tmp_path / f"b{after}"), expected)
    # A safetensors file converts to the same bytes as a pickle.
    convert(path, tmp_path / "a.ckpt", Options(**TO_MINDSPORE))
    convert(tmp_path / "a.ckpt", tmp_path / "b.safetensors", Options(**TO_TORCH))
    convert(tmp_path / "b.safetensors", tmp_path / "c.ckpt", Options(**TO_MINDSPORE))
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "c.ckpt").read_bytes()


@pytest.mark.parametrize("kind", ("float16", "bfloat16"))
def test_half_precision_widens_without_loss_and_narrows_back(kind, tmp_path, capsys):
    source = FIXTURES / ("half.pth" if kind == "float16" else "bfloat16.pth")
    convert(source, tmp_path / "a.ckpt", Options(verify=True))
    assert f"{kind} written as float32, every value exact" in capsys.readouterr().out
    assert {value.dtype for value in read_checkpoint(tmp_path / "a.ckpt")[0].values()} == {np.dtype(np.float32)}
    convert(tmp_path / "a.ckpt", tmp_path / "b.pth", Options(**TO_TORCH, dtype=kind))
    assert "every value exact" in capsys.readouterr().out
    assert same_bits(read(tmp_path / "b.pth"), read(source))


def test_rounded_values_are_counted(tmp_path, capsys):
    convert(FIXTURES / "ddp.pth", tmp_path / "a.ckpt", Options(dtype="float16", verify=True))
    assert "float32 written as float16, 2" in (text := capsys.readouterr().out) and "values rounded" in text
    for name, value in read_checkpoint(tmp_path / "a.ckpt")[0].items():
        assert value.dtype == np.float16, name


@pytest.mark.parametrize("kind", ("float32", "keep"))
def test_mindspore_loads_the_safetensors(kind, tmp_path):
    convert(FIXTURES / "bfloat16.pth", tmp_path / "a.safetensors", Options(verify=True, dtype=kind))
    convert(FIXTURES / "bfloat16.pth", tmp_path / "a.ckpt", Options(verify=True))
    # MindSpore's own checksum does not work for bfloat16.
    loaded = ms.load_checkpoint(str(tmp_path / "a.safetensors"), format="safetensors", crc_check=kind != "keep")
    expected = ms.load_checkpoint(str(tmp_path / "a.ckpt"))
    assert loaded.keys() == expected.keys()
    assert {str(value.dtype) for value in loaded.values()} == {"BFloat16" if kind == "keep" else "Float32"}
    for name, value in expected.items():
        assert (loaded[name].astype(ms.float32).asnumpy() == value.asnumpy()).all(), name


@pytest.fixture
def papers_model(monkeypatch):
    """Build a variant in PyTorch with random weights and the buffers of the paper's code."""
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(FIXTURES.parent.parent / "benchmarks")
    from torch_msg import Attention, TorchMSGTransformer

    def make(name, seed):
        torch.manual_seed(seed)
        model = TorchMSGTransformer(**VARIANTS[name]).eval()
        grid = torch.stack(torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")).flatten(1)
        offsets = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + 6
        for module in model.modules():
            if isinstance(module, Attention):
                module.register_buffer("relative_position_index", offsets[..., 0] * 13 + offsets[..., 1])
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean() > 0.5), std=0.02)
        return model

    return make


@pytest.mark.parametrize("kind", ("float16", "bfloat16"))
def test_an_index_in_half_precision_is_recognised(kind, tmp_path):
    """Use windows of 24 x 24: neither type represents every row of the table."""
    small = MSGTransformer(
        img_size=192, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=24, shuffle_size=(2, 1)
    )
    state = export_state_dict(to_numpy(parameters_by_name(small.get_parameters())))
    index = next(n for n in state if n.endswith("relative_position_index"))
    write_torch_file(tmp_path / "a.pth", {n: cast(v, DTYPES[kind]) for n, v in state.items()})
    assert not same_values(read(tmp_path / "a.pth")[index], state[index])
    convert(tmp_path / "a.pth", tmp_path / "a.ckpt", Options(**TO_MINDSPORE))
    convert(tmp_path / "a.ckpt", tmp_path / "b.pth", Options(**TO_TORCH))
    assert (read(tmp_path / "b.pth")[index] == state[index]).all()


@pytest.mark.parametrize(
    "name", ("msg_tiny", *(pytest.param(n, marks=pytest.mark.slow) for n in ("msg_small", "msg_base")))
)
def test_variants_convert_from_pytorch_and_back(name, papers_model, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    model = papers_model(name, 1)
    original = model.state_dict()
    torch.save({"model": original, "epoch": 7, "args": {"lr": 1e-3}}, tmp_path / "there.pth")
    convert(tmp_path / "there.pth", tmp_path / "ours.ckpt", Options(verify=True))
    assert f"there.pth: {name}\n" in capsys.readouterr().out
    convert(tmp_path / "ours.ckpt", tmp_path / "back.pth", Options(**TO_TORCH))
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == original.keys()
    for key, value in original.items():
        assert back[key].dtype == value.dtype and torch.equal(back[key], value), key
    another = papers_model(name, 2)
    another.load_state_dict(back, strict=True)
    x = np.random.default_rng(3).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        theirs = another(torch.from_numpy(x)).numpy()
        assert (theirs == model(torch.from_numpy(x)).numpy()).all()
    own = msg_ms.create_model(name).set_train(False)
    load_weights(own, tmp_path / "ours.ckpt")
    error = np.abs(own(Tensor(x)).asnumpy() - theirs).max()
    print(f"{name}: logits up to {np.abs(theirs).max():.3f}, differing by {error:.2e} at most")
    assert error < 1e-5


def test_pytorchs_own_safetensors(papers_model, tmp_path):
    """Files of safetensors.torch, in bfloat16, in both directions."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    original = {
        key: v.to(torch.bfloat16) if v.is_floating_point() else v
        for key, v in papers_model("msg_tiny", 1).state_dict().items()
    }
    library.save_file(original, tmp_path / "there.safetensors")
    convert(tmp_path / "there.safetensors", tmp_path / "ours.safetensors", Options(**TO_MINDSPORE))
    convert(tmp_path / "ours.safetensors", tmp_path / "back.safetensors", Options(**TO_TORCH))
    convert(tmp_path / "ours.safetensors", tmp_path / "back.bin", Options(**TO_TORCH))
    for back in (
        library.load_file(tmp_path / "back.safetensors"),
        torch.load(tmp_path / "back.bin", weights_only=True),
    ):
        assert back.keys() == original.keys()
        assert all(back[key].dtype == v.dtype and torch.equal(back[key], v) for key, v in original.items())
