"""SAM and SAM 2 of transformers with random weights, in a folder as from_pretrained reads it."""

import torch

SIDE = 128
DIM = 16


def _shared(transformers, name: str) -> dict:
    prompt = getattr(transformers, f'{name}PromptEncoderConfig')
    decoder = getattr(transformers, f'{name}MaskDecoderConfig')
    return dict(
        prompt_encoder_config=prompt(
            hidden_size=DIM, image_size=SIDE, patch_size=16, mask_input_channels=8
        ).to_dict(),
        mask_decoder_config=decoder(
            hidden_size=DIM, mlp_dim=DIM, num_attention_heads=2, iou_head_hidden_dim=DIM
        ).to_dict(),
    )


def sam_config(transformers):
    vision = transformers.SamVisionConfig(
        hidden_size=DIM,
        output_channels=DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=16,
        mlp_dim=DIM,
        window_size=4,
        global_attn_indexes=[0],
        num_pos_feats=DIM // 2,
    )
    return transformers.SamConfig(vision_config=vision.to_dict(), **_shared(transformers, 'Sam'))


def sam2_config(transformers):
    body = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=body.to_dict(),
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=DIM,
    )
    return transformers.Sam2Config(vision_config=vision.to_dict(), **_shared(transformers, 'Sam2'))


CONFIGS = dict(SamModel=sam_config, Sam2Model=sam2_config)


def tiny(transformers, kind: str) -> torch.nn.Module:
    """A model whose masks differ from point to point."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, kind)(CONFIGS[kind](transformers)).eval()
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                if tensor.ndim > 1 and 'vision_encoder' not in name:
                    tensor.normal_(std=1.0 if tensor.ndim == 4 else 0.5)
    return model
