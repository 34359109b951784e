"""Which keys of a DeepSpeed 0.19.8 configuration this engine takes, and which it refuses and why.

DeepSpeed ignores unknown top-level keys, so with a misspelt ``gradient_cliping`` it would train
unclipped. The tables are plain names, because reading a configuration must not import deepspeed. A
test compares them with the installed package.
"""

from typing import Any

NULL = type(None)

# A leaf is a type, or a tuple of types where several are right; ``float`` takes whole numbers too.
ACCEPTED: dict[str, Any] = {
    "train_batch_size": int,
    "train_micro_batch_size_per_gpu": int,
    "gradient_accumulation_steps": int,
    "gradient_clipping": float,
    "optimizer": {
        "type": str,
        "params": {
            "lr": float,
            "betas": list,
            "eps": float,
            "weight_decay": float,
            "torch_adam": bool,
            "fused": bool,
        },
    },
    "bf16": {"enabled": bool, "immediate_grad_update": bool, "check_grad_overflow": bool},
    "zero_optimization": {
        "stage": int,
        "contiguous_gradients": bool,
        "reduce_scatter": bool,
        "reduce_bucket_size": int,
        "use_multi_rank_bucket_allreduce": bool,
        "allgather_partitions": bool,
        "allgather_bucket_size": int,
        "overlap_comm": (bool, NULL),
        "ignore_unused_parameters": bool,
        "round_robin_gradients": bool,
        "enable_sanity_checks": bool,
    },
    "communication_data_type": (str, NULL),
    "data_types": {"grad_accum_dtype": (str, NULL)},
    "zero_allow_untested_optimizer": bool,
    "zero_force_ds_cpu_optimizer": bool,
    "steps_per_print": (int, NULL),
    "log_level": str,
    "disable_python_gc": bool,
    "dump_state": bool,
    "wall_clock_breakdown": bool,
    "memory_breakdown": bool,
    "timers": {"throughput": {"enabled": bool, "synchronized": bool}},
    "comms_logger": {
        "enabled": bool,
        "prof_all": bool,
        "prof_ops": list,
        "verbose": bool,
        "debug": bool,
    },
    "flops_profiler": {
        "enabled": bool,
        "recompute_fwd_factor": float,
        "profile_step": int,
        "module_depth": int,
        "top_modules": int,
        "detailed": bool,
        "output_file": (str, NULL),
    },
    "csv_monitor": {"enabled": bool, "output_path": str, "job_name": str},
    "wandb": {"enabled": bool, "group": (str, NULL), "team": (str, NULL), "project": str},
}

_STAGE_3 = "it belongs to ZeRO stage 3 and this engine runs stage 2; remove it"
_OURS = "data come from skysense.data; remove it"
_GONE = "DeepSpeed 0.19.8 has removed it; remove it here too"
_ADAMW = "the optimizer is always AdamW; remove it"
_ON_DEVICE = "the teacher is averaged beside the weights on the device; remove it"
_FP32 = "the teacher follows the fp32 master weights; remove it"

# Real DeepSpeed keys, by dotted path, that would do nothing or do harm here.
REFUSED = {
    "scheduler": "schedules are functions of the step; set skysense.schedule instead",
    "fp16": "only bf16 or fp32 is supported; set bf16.enabled",
    "bfloat16": "this is the old name; write bf16",
    "bf16.bf16_master_weights_and_grads": _FP32,
    "bf16.bf16_optimizer_states": _FP32,
    "torch_autocast": "the whole network runs in one precision; set bf16.enabled",
    "activation_checkpointing": "set skysense.recompute instead",
    "managed_gradient_accumulation": (
        "batch statistics are over one call, so there is nothing to accumulate; remove it"
    ),
    "prescale_gradients": "gradients are averaged once, after backward; remove it",
    "gradient_predivide_factor": "gradients are averaged once, after backward; remove it",
    "gradient_allreduce_op": "the losses are written for averaged gradients; remove it",
    "disable_allgather": "ZeRO stage 2 must gather the updated weights; remove it",
    "use_data_before_expert_parallelism": "expert-parallel ranks are consecutive here; remove it",
    "seq_parallel_communication_data_type": "there is no sequence parallelism here; remove it",
    "sequence_parallel_size": "there is no sequence parallelism here; remove it",
    "tensor_parallel": "there is no tensor parallelism here; remove it",
    "expert_parallel": "set skysense.ep_size instead",
    "pipeline": "there is no pipeline parallelism here; remove it",
    "hybrid_engine": "it is for generation; remove it",
    "compile": "DeepCompile is for ZeRO stages without experts; remove it",
    "weight_quantization": "weights stay in the training precision; remove it",
    "compression_training": "weights stay in the training precision; remove it",
    "autotuning": "it restarts the script with other batch sizes; remove it",
    "aio": "nothing is offloaded to NVMe here; remove it",
    "datastates_ckpt": "checkpoints are written by the engine; set skysense.checkpoint",
    "nebula": "checkpoints are written by the engine; set skysense.checkpoint",
    "checkpoint": "checkpoints are written by the engine; set skysense.checkpoint",
    "tensorboard": "the engine writes TensorBoard files into the run folder; remove it",
    "comet": "not supported; use csv_monitor or wandb, or the run folder's metrics.jsonl",
    "data_efficiency": _OURS,
    "dataloader_drop_last": _OURS,
    "vocabulary_size": _OURS,
    "data_types.param_dtype": "set bf16.enabled instead",
    "data_types.buffer_dtype": "set bf16.enabled instead",
    "data_types.keep_in_fp32_modules": "set bf16.enabled instead",
    "amp": "only bf16 or fp32 is supported; set bf16.enabled",
    "elasticity": _GONE,
    "sparse_attention": _GONE,
    "sparse_gradients": _GONE,
    "eigenvalue": _GONE,
    "quantize_training": _GONE,
    "graph_harvesting": _GONE,
    "curriculum_learning": _GONE,
    "progressive_layer_drop": _GONE,
    "optimizer.legacy_fusion": "it belongs to fp16; remove it",
    "optimizer.params.max_grad_norm": "set the top-level gradient_clipping instead",
    "optimizer.params.adam_w_mode": _ADAMW,
    "zero_optimization.compute_grad_norm": "the gradient norm is logged at every step; remove it",
    "zero_optimization.elastic_checkpoint": (
        "checkpoints are the engine's own and go on with any number of ranks; remove it"
    ),
    "zero_optimization.load_from_fp32_weights": (
        "checkpoints are the engine's own and hold the fp32 weights; remove it"
    ),
    "zero_optimization.legacy_stage1": "this engine runs stage 2; remove it",
    "zero_optimization.parameter_alignment": (
        "the teacher's shards need the unpadded layout; remove it"
    ),
    "zero_optimization.offload_optimizer": _ON_DEVICE,
    "zero_optimization.cpu_offload": _ON_DEVICE,
    "zero_optimization.cpu_offload_use_pin_memory": "nothing is offloaded here; remove it",
    "zero_optimization.zenflow": "nothing is offloaded here; remove it",
    "zero_optimization.save_muon_momentum_buffer_in_memory": _ADAMW,
    "zero_optimization.log_trace_cache_warnings": _STAGE_3,
    "zero_optimization.pipeline_loading_checkpoint": _STAGE_3,
    "zero_optimization.override_module_apply": _STAGE_3,
    "zero_optimization.memory_efficient_linear": _STAGE_3,
    "zero_optimization.leaf_module": _STAGE_3,
    "zero_optimization.offload_param": _STAGE_3,
    "zero_optimization.cpu_offload_param": _STAGE_3,
    "zero_optimization.sub_group_size": _STAGE_3,
    "zero_optimization.zero_hpz_partition_size": _STAGE_3,
    "zero_optimization.zero_quantized_weights": _STAGE_3,
    "zero_optimization.zero_quantized_nontrainable_weights": _STAGE_3,
    "zero_optimization.zero_quantized_gradients": _STAGE_3,
    "zero_optimization.stage3_prefetch_bucket_size": _STAGE_3,
    "zero_optimization.stage3_param_persistence_threshold": _STAGE_3,
    "zero_optimization.stage3_model_persistence_threshold": _STAGE_3,
    "zero_optimization.stage3_max_live_parameters": _STAGE_3,
    "zero_optimization.stage3_max_reuse_distance": _STAGE_3,
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": _STAGE_3,
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": _STAGE_3,
    "zero_optimization.stage3_module_granularity_threshold": _STAGE_3,
    "zero_optimization.stage3_use_all_reduce_for_fetch_params": _STAGE_3,
    "zero_optimization.stage3_allgather_sequential": _STAGE_3,
    "zero_optimization.mics_shard_size": _GONE,
    "zero_optimization.mics_hierarchical_params_gather": _GONE,
    "zero_optimization.zeropp_loco_param": _GONE,
}
