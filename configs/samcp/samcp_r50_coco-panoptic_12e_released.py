# SAM-CP as samcp_r50_coco-panoptic_12e.py, with the readings of the authors' research code wherever
# it differs from the paper; docs/ambiguities.md tells each.
# Patches as there. Then
#   python tools/train.py configs/samcp/samcp_r50_coco-panoptic_12e_released.py
_base_ = './samcp_r50_coco-panoptic_12e.py'
model = dict(
    head=dict(
        semantic_classes='stuff',
        decoder=dict(
            query_enhancement=False,
            prior='every_layer',
            affinity_ffn_dim=2048,
            affinity_rectified=True,
        ),
        loss=dict(
            part_assigner=dict(low_quality='code', ignore_band=0.5),
            semantic_assigner=dict(_delete_=True, type='SAMCPPartAssigner', low_quality=None),
            self_affinity=0.0,
            cls_normaliser='positives',
            mask_normaliser='branch',
            empty_classes='negative',
            min_box_iou=0.5,
        ),
    ),
    test_cfg=dict(semantic_from='panoptic', unclaimed='void'),
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[8 * 7393, 11 * 7393],
        gamma=0.1,
        begin=0,
        end=12 * 7393,
        by_epoch=False,
    )
]
