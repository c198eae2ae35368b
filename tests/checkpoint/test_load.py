"""Load a part of a larger model: names with and without the prefix, strictly."""

import numpy as np
import pytest
from mindspore import nn
from support.reference import SMALL

from msg_ms import MSGFeatures, MSGTransformer, UserError
from msg_ms.checkpoint import load_pretrained, parameters_by_name, to_numpy, write_checkpoint

OTHER_SIZES = {"img_size": 48, "window_size": 6}


class Detector(nn.Cell):
    """A larger model around a backbone; it only needs parameter names."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Dense(2, 2)


@pytest.fixture
def classifier():
    """Return a classifier's weights by plain names, all different from any initial value."""
    model = MSGTransformer(**SMALL, ape=True)
    arrays = to_numpy(parameters_by_name(model.get_parameters()))
    return {name: value + np.float32(7) for name, value in arrays.items()}


@pytest.fixture
def save(tmp_path):
    """Write arrays to a checkpoint, each name after a prefix, and return the path."""

    def write(arrays, prefix="", **more):
        path = tmp_path / "x.ckpt"
        write_checkpoint(path, {**{prefix + name: value for name, value in arrays.items()}, **more})
        return path

    return write


def values(model, prefix="backbone."):
    arrays = to_numpy(parameters_by_name(model.get_parameters()))
    assert all(name.startswith(prefix) for name in arrays)
    return {name.removeprefix(prefix): value for name, value in arrays.items()}


@pytest.mark.parametrize("in_file", ("", "backbone."))
def test_a_classifier_inside_a_larger_model(in_file, classifier, save):
    detector = Detector(MSGTransformer(**SMALL, ape=True))
    neck = detector.neck.weight.asnumpy().copy()
    assert load_pretrained(detector.backbone, save(classifier, in_file), prefix="backbone.") == []
    loaded = values(detector.backbone)
    assert loaded.keys() == classifier.keys()
    assert all((loaded[name] == classifier[name]).all() for name in classifier)
    assert (detector.neck.weight.asnumpy() == neck).all()


@pytest.mark.parametrize("in_file", ("", "backbone."))
def test_other_classes_and_sizes_inside_a_larger_model(in_file, classifier, save):
    detector = Detector(MSGTransformer(**{**SMALL, **OTHER_SIZES, "num_classes": 5}, ape=True))
    head = detector.backbone.head.weight.asnumpy().copy()
    assert load_pretrained(detector.backbone, save(classifier, in_file), prefix="backbone.") == [
        "classification head re-initialised: 3 classes in the file, 5 in the model",
        "absolute_pos_embed resampled from 64 to 144 positions",
        "relative_position_bias_table resampled from 49 to 121 positions",
    ]
    loaded = values(detector.backbone)
    assert (loaded["head.weight"] == head).all()
    assert (loaded["norm.gamma"] == classifier["norm.gamma"]).all()
    assert abs(loaded["absolute_pos_embed"].mean() - classifier["absolute_pos_embed"].mean()) < 1e-2


@pytest.mark.parametrize("in_file", ("", "backbone."))
@pytest.mark.parametrize("outputs", ((0, 1), (0,)))
def test_feature_maps_inside_a_larger_model(outputs, in_file, classifier, save):
    detector = Detector(MSGFeatures(**{**SMALL, **OTHER_SIZES}, ape=True, out_indices=outputs, out_norm=True))
    assert load_pretrained(detector.backbone, save(classifier, in_file), prefix="backbone.") == [
        "absolute_pos_embed resampled from 64 to 144 positions",
        "relative_position_bias_table resampled from 49 to 121 positions",
    ]
    loaded = values(detector.backbone)
    norms = {f"norm{i}.{name}" for i in outputs for name in ("gamma", "beta")}
    assert loaded.keys() - classifier.keys() == norms
    for name in loaded.keys() & classifier.keys():
        if loaded[name].shape == classifier[name].shape:
            assert (loaded[name] == classifier[name]).all(), name
    assert (loaded["norm0.gamma"] == 1).all() and (loaded["norm0.beta"] == 0).all()


def test_only_the_prefixed_part_of_a_larger_models_file_is_loaded(classifier, save):
    detector = Detector(MSGTransformer(**SMALL, ape=True))
    path = save(classifier, "backbone.", **{"neck.weight": np.zeros((2, 2), np.float32)})
    assert load_pretrained(detector.backbone, path, prefix="backbone.") == []
    # A backbone that is not part of a larger model yet has plain names.
    alone = MSGTransformer(**SMALL, ape=True)
    assert load_pretrained(alone, path, prefix="backbone.") == []
    assert all((value == classifier[name]).all() for name, value in values(alone, "").items())


@pytest.mark.parametrize("in_file", ("", "backbone."))
@pytest.mark.parametrize("backbone", (MSGTransformer, MSGFeatures))
def test_unknown_and_missing_names_are_refused_with_a_prefix(backbone, in_file, classifier, save):
    detector = Detector(backbone(**SMALL, ape=True))
    before = values(detector.backbone)
    unknown = {**classifier, "layers.0.blocks.0.unknown": np.zeros(1, np.float32)}
    with pytest.raises(UserError, match=r"x.ckpt does not fit .*: the model has no layers.0.blocks.0.unknown$"):
        load_pretrained(detector.backbone, save(unknown, in_file), prefix="backbone.")
    for name in ("msg_tokens", "absolute_pos_embed", "layers.1.blocks.0.norm1.gamma"):
        without = {other: value for other, value in classifier.items() if other != name}
        with pytest.raises(UserError, match=rf"x.ckpt does not fit .*: {name} is missing$"):
            load_pretrained(detector.backbone, save(without, in_file), prefix="backbone.")
    wrong_shape = {**classifier, "patch_embed.proj.weight": np.zeros((16, 3, 5, 5), np.float32)}
    with pytest.raises(UserError, match=r"patch_embed.proj.weight is \(16, 3, 5, 5\), the model's is \(16, 3, 7, 7\)"):
        load_pretrained(detector.backbone, save(wrong_shape, in_file), prefix="backbone.")
    after = values(detector.backbone)
    assert all((after[name] == value).all() for name, value in before.items())


def test_another_prefix_is_refused(classifier, save):
    detector = Detector(MSGTransformer(**SMALL, ape=True))
    with pytest.raises(UserError, match=r"msg_tokens is missing"):
        load_pretrained(detector.backbone, save(classifier, "encoder."), prefix="backbone.")
    with pytest.raises(UserError, match=r"the model has no backbone.|is missing"):
        load_pretrained(detector.backbone, save(classifier, "encoder."))
    # The prefix selects a part of the file, not of the model.
    with pytest.raises(UserError, match=r"neck.weight is missing; neck.bias is missing$"):
        load_pretrained(detector, save(classifier, "backbone."), prefix="backbone.")


def test_a_nested_head_must_be_in_the_file(classifier, save):
    """Without a prefix only the model's own head may be missing; a nested one of other classes keeps its values."""
    detector = Detector(MSGTransformer(**{**SMALL, "num_classes": 5}, ape=True))
    neck = {"neck.weight": np.zeros((2, 2), np.float32), "neck.bias": np.zeros(2, np.float32)}
    assert load_pretrained(detector, save(classifier, "backbone.", **neck)) == [
        "classification head re-initialised: 3 classes in the file, 5 in the model"
    ]
    headless = {name: value for name, value in classifier.items() if not name.startswith("head.")}
    with pytest.raises(UserError, match=r"backbone.head.weight is missing; backbone.head.bias is missing$"):
        load_pretrained(detector, save(headless, "backbone.", **neck))
    own = MSGTransformer(**{**SMALL, "num_classes": 5}, ape=True)
    assert load_pretrained(own, save(headless)) == []
