"""Whether a LoRA adapter is what its base model, its training and its fleet say it is, before a box loads it.

vLLM loads many a wrong adapter with 200 and serves nonsense, so what it does not look at is looked at here: from
``adapter_config.json``, ``adapter_model.safetensors`` and the base's ``config.json``, without a GPU, without the base's
weights and without torch. ``read.py`` reads, everything that judges is pure, ``check.py`` puts it together. Only
``weights.py`` needs the optional packages numpy and safetensors.

What vLLM takes is as in its version 0.32 (``vllm/lora/peft_helper.py``, ``lora_model.py``), what the configuration
means as in PEFT 0.21.
"""
