# SEEM as it is: neither prompt is learned. Beside ssprompt_*.py, a leaf gives the model
# `decode_head={{_base_.default_prompts}}`.
default_prompts = dict(
    spatial_prompt=dict(_delete_=True, type='DefaultPrompt'),
    semantic_prompt=dict(_delete_=True, type='DefaultPrompt'),
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
