"""Results in the structures of MMDetection: boxes, ids, and what its metrics read from them."""

import numpy as np
import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmseg.structures import SegDataSample
from torchvision.ops import masks_to_boxes

from mmprompt.common import results
from mmprompt.common.mask_merge import InstanceResult, PanopticResult
from mmprompt.common.results import add_instances, add_panoptic, mask_boxes, to_det_sample

CLASSES = ('road', 'car', 'sky', 'person')


def panoptic() -> PanopticResult:
    """Road, two cars, a person, and unlabelled pixels."""
    seg_map = torch.tensor([[1, 1, 2, 2], [0, 3, 4, 4]])
    labels = torch.tensor([0, 1, 1, 3])
    return PanopticResult(seg_map, torch.arange(1, 5), labels, torch.rand(4))


def test_boxes_end_behind_the_last_pixel():
    masks = torch.rand(6, 9, 13, generator=torch.Generator().manual_seed(0)) > 0.93
    masks[:, 4, 5] = True
    wanted = masks_to_boxes(masks)  # which end at the last pixel
    wanted[:, 2:] += 1
    assert torch.equal(mask_boxes(masks), wanted)
    assert mask_boxes(torch.zeros(2, 3, 4, dtype=torch.bool)).tolist() == [[0] * 4] * 2
    assert mask_boxes(torch.zeros(0, 3, 4, dtype=torch.bool)).shape == (0, 4)


def test_ids_of_mmdetection():
    assert results.INSTANCE_OFFSET == INSTANCE_OFFSET
    ids = results.mmdet_ids(panoptic(), len(CLASSES), (1, 3))
    assert ids.tolist() == [[0, 0, 2001, 2001], [4, 3001, 4003, 4003]]


def test_the_panoptic_metric_of_mmdetection_reads_them(monkeypatch, tmp_path):
    """Its parsing needs two functions of panopticapi, which stand here."""
    from mmdet.evaluation.metrics import coco_panoptic_metric as theirs

    monkeypatch.setattr(
        theirs, 'id2rgb', lambda ids: np.stack([ids % 256, ids // 256, ids * 0], -1)
    )
    monkeypatch.setattr(theirs, 'VOID', 0)
    metric = object.__new__(theirs.CocoPanopticMetric)
    metric._dataset_meta, metric.seg_out_dir = dict(classes=CLASSES), str(tmp_path)
    metric.tmp_dir = None
    sample = SegDataSample()
    add_panoptic(sample, panoptic(), len(CLASSES), (1, 3))
    parsed = metric._parse_predictions(to_det_sample(sample).to_dict(), 1, 'a.png')
    rows = [(s['category_id'], s['area']) for s in parsed['segments_info']]
    assert sorted(rows) == [(0, 2), (1, 1), (1, 2), (3, 2)]
    assert len({s['id'] for s in parsed['segments_info']}) == 4
    assert sample.pred_panoptic_seg.data.tolist() == [[[1, 1, 2, 2], [0, 3, 4, 4]]]


def test_a_detection_sample_holds_the_same():
    sample = SegDataSample(metainfo=dict(img_id=7, ori_shape=(2, 4)))
    masks = torch.tensor([[[True, False], [False, False]]])
    add_instances(sample, InstanceResult(masks, torch.tensor([2]), torch.tensor([0.5])))
    add_panoptic(sample, panoptic(), len(CLASSES), (1, 3))
    found = to_det_sample(sample)
    assert isinstance(found, DetDataSample) and found.img_id == 7
    assert isinstance(found.pred_instances, InstanceData)
    assert found.pred_instances.bboxes.tolist() == [[0, 0, 1, 1]]
    assert found.pred_instances.masks is sample.pred_instances.masks
    assert found.pred_segments.labels.tolist() == [0, 1, 1, 3]
    assert 'pred_panoptic_seg' in found
