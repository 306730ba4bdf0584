"""SAM 2 and SAM 3 of transformers with tiny random networks, as folders of published files."""

from __future__ import annotations

from pathlib import Path

import torch

VOCABULARY = ["<|startoftext|>", "<|endoftext|>", "interior</w>", "objects</w>", "chair</w>"]


def sam2_network(seed: int = 0) -> torch.nn.Module:
    from transformers import Sam2Config
    from transformers.models.sam2.modeling_sam2 import Sam2Model

    torch.manual_seed(seed)
    side = 64
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "image_size": [side, side],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [4, 2, 2, 2],
                "global_attention_blocks": [3],
                "window_positional_embedding_background_size": [2, 2],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": side, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    )
    return Sam2Model(config).eval()


def sam3_network(seed: int = 0) -> torch.nn.Module:
    from transformers import Sam3Config
    from transformers.models.sam3.modeling_sam3 import Sam3Model

    torch.manual_seed(seed)
    common = {"hidden_size": 32, "num_attention_heads": 2}
    layers = {**common, "num_layers": 1, "intermediate_size": 32}
    config = Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                **common,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "image_size": 112,
                "patch_size": 14,
                "pretrain_image_size": 56,
                "window_size": 4,
                "global_attn_indexes": [1],
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            "vocab_size": len(VOCABULARY),
            "hidden_size": 32,
            "intermediate_size": 32,
            "projection_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config={**layers, "num_queries": 6},
        mask_decoder_config=common,
    )
    return Sam3Model(config).eval()


def write_sam2(folder: Path) -> Path:
    """Write the files of a tiny SAM 2."""
    sam2_network().save_pretrained(folder)
    return folder


def write_sam3(folder: Path) -> Path:
    """Write the files of a tiny SAM 3 and a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    sam3_network().save_pretrained(folder)
    words = {word.removesuffix("</w>"): place for place, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        model_max_length=32,
    ).save_pretrained(folder)
    return folder
