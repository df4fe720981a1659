"""A tiny Llama and a fleet of LoRA adapters for it, made by code, so that a real vLLM can be tested without a GPU.

``artefacts`` is plain Python and runs anywhere; the other modules need the engine's environment (torch, transformers,
PEFT) and run there: ``.venv-engine/bin/python -m backend.tiny_model``.
"""
