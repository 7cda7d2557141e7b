# SAM-CP in small on photographs, trained on 60 of the 71 classes that occur in them; the base says
# which, samcp_r50_coco128.py how images, patches and embeddings are made.
#   python tools/train.py configs/samcp/samcp_r50_coco128_seen-60.py
# This measures on the 60 classes, samcp_r50_coco128_seen-60_all-71.py on seen and unseen ones.
_base_ = ['./samcp_r50_coco128.py', '../_base_/datasets/coco128-seen-60.py']
model = dict(
    classes={{_base_.seen_names}},
    head=dict(
        thing_classes=tuple(range(60)),
        text=dict(
            _delete_=True,
            array='{{$MMPROMPT_DATA:data}}/text_embeddings/coco_clip_a+cname.npy',
            names={{_base_.class_names}},
        ),
    ),
)
train_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.seen_names}})))
val_dataloader = dict(dataset=dict(metainfo=dict(classes={{_base_.seen_names}})))
test_dataloader = val_dataloader
