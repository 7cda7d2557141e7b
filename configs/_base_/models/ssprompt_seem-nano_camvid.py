# SSPrompt over the SEEM-nano that configs/seem/seem-nano_camvid-day.py fine-tunes. A leaf adds
# `classes`.
_base_ = './ssprompt_seem-nano.py'
model = dict(
    base='work_dirs/seem-nano_camvid-day/seem-nano_camvid-day.safetensors',
    base_address='python tools/train.py configs/seem/seem-nano_camvid-day.py',
)
