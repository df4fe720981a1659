"""A tiny Llama that calls tools, and one LoRA adapter per customer that calls that customer's own tools.

All of it is trained here, on two cores in some minutes, so that a real vLLM can be asked for something that is right or
wrong. ``base``, ``build``, ``exports``, ``tuning`` and ``vocabulary`` need the engine's environment (torch,
transformers, PEFT, TRL): ``.venv-engine/bin/python -m backend.tiny_agents``. The others are plain Python.
"""
