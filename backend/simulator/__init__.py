"""A vLLM 0.32 box without a GPU, and a stand-in for a hosted provider; both break on demand.

An answer is a script: the dialect (``vllm_answers``, ``openai_answers``, ``anthropic_answers``) gives the steps of a
healthy one, a fault rule (``faults``, ``fault_scripts``) rewrites them, and the connection plays them. Nothing but
``connection`` and ``server`` touches a socket or a clock.

When a token comes is the engine's to say: at one fixed pace (``engine``), or when the steps of a model of vLLM's
scheduler make it (``modelled_engine``). That model (``engine_model`` on ``costs`` and ``lora_cache``, driven over time
by ``timeline``) is of use without any server, in a simulation of many boxes.

Every answer is numbered, so that a reader sees a gap, a repeat or an invention, and who answered:

- text is ``NAME: 0 1 2 3 end/4``, one token a piece (``"NAME:"``, ``" 0"``, ``" 1"``, …, ``" end/4"``), NAME being the
  adapter's name (the base's own for the base, ``generic`` for a provider). Only an answer that ended by itself
  (``finish_reason: "stop"``) says ``end``, with how many numbers there were; one that ran into ``max_tokens`` stops
  at a number.
- the arguments of a tool call are ``{"answered_by": "NAME", "numbers": [0, 1, 2, 3]}``, and so is the text where
  ``response_format`` wants JSON, whatever its schema. Who has a tool's result as the last message gets text.
"""
