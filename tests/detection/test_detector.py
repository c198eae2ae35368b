"""The whole detector: sizes, names, inference and training against mmdetection's vectors."""

import pytest
from mindspore.nn.utils import no_init_parameters

import msg_ms
from msg_ms import UserError

# Parameters and multiply-adds at 1280 x 800 in the paper's table: 83 / 113 / 142M and 731 / 831 / 956G.
SIZES = {
    "cascade_mask_rcnn_msg_tiny": (82_560_238, 730.64),
    "cascade_mask_rcnn_msg_small": (113_309_964, 830.78),
    "cascade_mask_rcnn_msg_base": (141_734_220, 956.39),
}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_flops_are_the_papers(name):
    with no_init_parameters():
        model = msg_ms.create_detector(name)
    parameters, flops = SIZES[name]
    assert sum(parameter.size for parameter in model.trainable_params()) == parameters
    assert round(model.flops(800, 1280) / 1e9, 2) == flops


def test_detectors_are_listed_and_other_names_are_refused():
    assert msg_ms.list_detectors() == list(SIZES)
    with pytest.raises(UserError, match="did you mean 'cascade_mask_rcnn_msg_tiny'"):
        msg_ms.create_detector("cascade_mask_rcnn_msg_tin")
    with pytest.raises(UserError, match="num_classes=0"):
        msg_ms.create_detector("cascade_mask_rcnn_msg_tiny", num_classes=0)


def test_arguments_reach_the_backbone_and_the_settings():
    with no_init_parameters():
        model = msg_ms.create_detector("cascade_mask_rcnn_msg_tiny", 7, depths=(1, 1, 1, 1), max_detections=3)
    assert model.backbone.depths == (1, 1, 1, 1)
    assert (model.settings.num_classes, model.settings.max_detections) == (7, 3)
