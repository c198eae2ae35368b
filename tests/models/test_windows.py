"""Window functions against their definition, with every dimension different."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from msg_ms import UserError
from msg_ms.models.attention import position_bias_elements, position_bias_index
from msg_ms.models.windows import stage_geometry, window_partition, window_reverse
from msg_ms.ops import ShuffleMessages, position_bias

B, W, S, ROWS, COLUMNS, C = 2, 3, 2, 2, 3, 5  # rows and columns of shuffle regions


def test_partition_lists_regions_windows_and_tokens_row_by_row():
    height, width = ROWS * S * W, COLUMNS * S * W
    x = np.arange(B * height * width * C, dtype=np.float32).reshape(B, height, width, C)
    windows = window_partition(Tensor(x), W, S)
    assert windows.shape == (B * ROWS * COLUMNS, S * S, W * W, C)
    got = windows.asnumpy().reshape(B, ROWS, COLUMNS, S, S, W, W, C)
    for b, i, j in ((0, 0, 0), (1, 1, 2), (0, 1, 1)):
        for r, c, y, z in ((0, 0, 0, 0), (1, 0, 2, 1), (0, 1, 1, 2)):
            row, column = (i * S + r) * W + y, (j * S + c) * W + z
            assert (got[b, i, j, r, c, y, z] == x[b, row, column]).all()
    back = window_reverse(windows, W, S, height, width)
    assert (back.asnumpy() == x).all()
    channels_first = window_reverse(windows, W, S, height, width, channels_first=True)
    assert (channels_first.asnumpy() == x.transpose(0, 3, 1, 2)).all()
    assert (window_partition(channels_first, W, S, channels_first=True).asnumpy() == windows.asnumpy()).all()


def test_shuffle_moves_channel_groups_between_msg_tokens_and_nothing_else():
    regions, windows, tokens, channels = 3, 4, 6, 8
    x = np.random.RandomState(0).rand(regions, windows, tokens, channels).astype(np.float32)
    y = ShuffleMessages()(Tensor(x)).asnumpy()
    group = channels // windows
    for i in range(windows):
        for j in range(windows):
            sent = x[:, i, 0, j * group : (j + 1) * group]
            assert (y[:, j, 0, i * group : (i + 1) * group] == sent).all()
    assert (y[:, :, 1:] == x[:, :, 1:]).all()
    single = Tensor(x[:, :1])
    assert (ShuffleMessages()(single).asnumpy() == x[:, :1]).all()


@pytest.mark.parametrize("mode", (ms.PYNATIVE_MODE, ms.GRAPH_MODE))
def test_gradient_of_the_shuffle_returns_every_channel_to_its_window(mode):
    ms.set_context(mode=mode)
    shuffle = ShuffleMessages()
    x = np.random.RandomState(0).rand(3, 4, 6, 8).astype(np.float32)
    weight = np.random.RandomState(1).rand(*x.shape).astype(np.float32)

    def weighted(x, weight):
        return (shuffle(x) * weight).sum()

    gradient = ms.grad(weighted)(Tensor(x), Tensor(weight)).asnumpy()
    # The shuffle permutes, so shuffling the gradient returns the weights.
    assert (shuffle(Tensor(gradient)).asnumpy() == weight).all()


def test_position_bias_is_decoupled_for_the_msg_token():
    index = position_bias_index(2)
    assert (index[0] == 10).all()  # the MSG token's query, its own key included
    assert (index[1:, 0] == 9).all()  # queries of window tokens, key of the MSG token
    # query (y, x), key (y', x'): (y - y' + 1) * 3 + (x - x' + 1)
    assert index[1:, 1:].tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_position_bias_of_each_head_is_its_column_of_the_table():
    heads, rows = 3, np.random.RandomState(0).rand(11, 3).astype(np.float32)
    message = rows[9:].T.reshape(heads, 2, 1, 1)
    bias = position_bias(Tensor(rows[:9].copy()), Tensor(message), position_bias_elements(2, heads)).asnumpy()
    assert (bias == rows[position_bias_index(2)].transpose(2, 0, 1)).all()


def test_geometry_follows_from_shapes():
    assert stage_geometry(224, 448, 4, 7, (4, 4, 2, 1)) == ((56, 112, 4), (28, 56, 4), (14, 28, 2), (7, 14, 1))
    assert stage_geometry(64, 64, 4, 4, (4, 2, 2))[2] == (4, 4, 1)  # a single window has nothing to shuffle


@pytest.mark.parametrize(
    ("size", "window", "regions", "fitting"),
    [
        ((225, 225), 7, (4, 4, 2, 1), "224 or 448"),
        ((384, 384), 7, (4, 4, 2, 1), "224 or 448; or, at this size, window_size 6 or 12"),
        ((64, 64), 7, (4, 4, 2, 1), "224; or, at this size, window_size 2"),
        ((300, 320), 4, (2, 2), "height 256 or 320, width 320"),
        ((224, 300), 7, (4, 4, 2, 1), "height 224, width 224 or 448"),
        ((0, 224), 7, (4, 4, 2, 1), "height 224, width 224"),
        ((40, 40), 4, (1, 2), "32 or 64; or, at this size, window_size 5"),  # 32 is one last window, 64 whole regions
        ((32, 40), 4, (1, 2), "height 64, width 64"),
    ],
)
def test_a_size_that_does_not_fit_names_what_does(size, window, regions, fitting):
    with pytest.raises(UserError, match=f"img_size=.*fit: {fitting}$"):
        stage_geometry(*size, 4, window, regions)


@pytest.mark.parametrize("regions", [(4, 4, 2, 1), (2, 3), (1, 2, 2), (3, 1)])
def test_sizes_in_the_error_are_those_that_fit(regions):
    """Compare with a search through all sides."""

    def fits(height, width):
        try:
            return bool(stage_geometry(height, width, 3, 2, regions))
        except UserError as error:
            return str(error)

    squares = [side for side in range(3, 500) if fits(side, side) is True]
    for side in range(4, 200, 7):
        text = fits(side, side)
        if text is not True:
            near = [s for s in squares if s < side][-1:] + [s for s in squares if s > side][:1]
            assert f"fit: {' or '.join(map(str, near))}" in text
        text = fits(side, squares[-1])
        if text is not True:
            sides = [s for s in range(3, 500) if s != squares[-1] and fits(s, squares[-1]) is True]
            near = [s for s in sides if s < side][-1:] + [s for s in sides if s > side][:1]
            assert f"fit: height {' or '.join(map(str, near))}, width {squares[-1]}" in text
