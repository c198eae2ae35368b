"""A small model whose parameters all differ."""

import numpy as np
from mindspore import Tensor

SMALL = dict(
    img_size=32, num_classes=5, embed_dim=16, depths=(1, 2), num_heads=(1, 2), window_size=4, shuffle_size=(2, 1)
)


def noisy(model):
    """Make all parameters differ from zero and from each other."""
    draws = np.random.RandomState(0)
    for parameter in model.get_parameters():
        noise = draws.standard_normal(parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(parameter.asnumpy() + 0.3 * noise))
    return model
