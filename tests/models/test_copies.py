"""Copies of models: the same results, own parameters and graphs; pickle says why it can't."""

import copy
import pickle

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from msg_ms import MSGFeatures, MSGTransformer, ops, optimize_for_inference

SMALL = dict(
    img_size=32, num_classes=5, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4, shuffle_size=(2, 1)
)
IMAGES = Tensor(np.random.RandomState(1).standard_normal((2, 3, 32, 32)).astype(np.float32))


@pytest.mark.parametrize("backend", ("native", pytest.param("composed", marks=pytest.mark.slow)))
def test_a_copy_is_independent(backend):
    with ops.use_backend(backend):
        model = MSGTransformer(**SMALL).set_train(False)
    before = model(IMAGES).asnumpy()
    deep = copy.deepcopy(model)
    assert [p.name for p in deep.get_parameters()] == [p.name for p in model.get_parameters()]
    for parameter in deep.get_parameters():
        parameter.set_data(1.5 * parameter)
    assert not np.allclose(deep(IMAGES).asnumpy(), before)
    assert deep.compile_cache.isdisjoint(model.compile_cache)  # whose graphs MindSpore deletes with the Cell
    assert np.array_equal(copy.copy(model)(IMAGES).asnumpy(), before)
    assert np.array_equal(model(IMAGES).asnumpy(), before)


def test_a_copy_is_trained_and_optimized_for_inference():
    with ops.use_backend("native"):
        model = MSGTransformer(**SMALL).set_train(False)
    before = model(IMAGES).asnumpy()
    optimized = optimize_for_inference(copy.deepcopy(model))
    again = copy.deepcopy(optimized)
    assert np.array_equal(optimized(IMAGES).asnumpy(), before) and np.array_equal(again(IMAGES).asnumpy(), before)
    trained = copy.deepcopy(nn.SequentialCell([model])).set_train(True)

    def loss(images):
        return trained(images).sum()

    gradients = ms.value_and_grad(loss, None, trained.trainable_params())(IMAGES)[1]
    assert len(gradients) == len(model.trainable_params()) and all(
        np.abs(g.asnumpy()).max() > 0 for g in gradients[-3:]
    )
    assert np.array_equal(model(IMAGES).asnumpy(), before)


@pytest.mark.parametrize("backend", ("native", "composed"))
def test_pickle_says_why_it_cannot(backend):
    with ops.use_backend(backend):
        models = [MSGTransformer(**SMALL), MSGFeatures(**{k: v for k, v in SMALL.items() if k != "num_classes"})]
    models += [optimize_for_inference(copy.deepcopy(models[0])), nn.SequentialCell([models[0]])]
    for model in models:
        with pytest.raises(pickle.PicklingError, match=r"can't be pickled, .*: save its parameters with mindspore\."):
            pickle.dumps(model)
