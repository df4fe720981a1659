"""The base: a small Llama, trained from nothing to call the generic tools."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch  # type: ignore[import-not-found]
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # type: ignore[import-not-found]

from backend.tiny_agents.examples import Example, spellings, training
from backend.tiny_agents.houses import GENERIC
from backend.tiny_agents.vocabulary import BEGIN, LONGEST_CONTEXT, TOOLS, TURN

NAME: Final = "tiny-agents-base"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the base is trained. ``copy_steps``: the first steps copy random tokens only."""

    steps: int = 4000
    copy_steps: int = 600
    batch: int = 16
    learning_rate: float = 3e-3
    warm_up: int = 100
    hidden: int = 128
    layers: int = 2
    seed: int = 1
    copy_share: float = 0.1
    spelling_share: float = 0.25


class Encoder:
    """Examples as token ids, as the chat template and vLLM make them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self.turn: int = tokenizer.convert_tokens_to_ids(TURN)
        self._begin: int = tokenizer.convert_tokens_to_ids(BEGIN)
        self._tools: int = tokenizer.convert_tokens_to_ids(TOOLS)
        self._user: int = tokenizer.convert_tokens_to_ids("<|user|>")
        self._assistant: int = tokenizer.convert_tokens_to_ids("<|assistant|>")

    def text(self, text: str) -> list[int]:
        """The ids of a text, without any mark around it."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def frame(self, prompt: list[int], completion: list[int], *, tools: bool) -> tuple[list[int], list[int]]:
        """Prompt and completion as one turn each; ids, and 1 for each id that is to be said."""
        before = [self._begin, *([self._tools] if tools else []), self._user, *prompt, self.turn, self._assistant]
        said = [*completion, self.turn]
        return before + said, [0] * len(before) + [1] * len(said)

    def example(self, example: Example) -> tuple[list[int], list[int]]:
        return self.frame(self.text(example.prompt), self.text(example.completion), tools=example.tools)


def build_network(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> LlamaForCausalLM:
    """The untrained network. Heads of 32: the smallest that vLLM's attention on CPUs takes."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.hidden // 32,
        num_key_value_heads=recipe.hidden // 32,
        max_position_embeddings=LONGEST_CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 300.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).to(torch.float32)


def train_base(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, tell: Callable[[int, float], None]
) -> LlamaForCausalLM:
    """A trained base. ``tell`` hears each step's number and loss."""
    model = build_network(tokenizer, recipe)
    encoder = Encoder(tokenizer)
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    plain = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    batches = _batches(encoder, len(tokenizer), recipe)
    model.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        ids, mask = pad(next(batches), tokenizer.pad_token_id)
        optimizer.zero_grad(set_to_none=True)
        loss = completion_loss(model, ids, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        tell(step, loss.item())
    return model.eval()


def completion_loss(model: LlamaForCausalLM, ids: Any, mask: Any) -> Any:
    """Cross-entropy over what is to be said. No attention mask: padding comes last, and nothing looks ahead."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    said = mask[:, 1:].bool()
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[said]), ids[:, 1:][said])


def exactly_right(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> float:
    """The share of examples that greedy decoding would say to the last token."""
    encoder, right = Encoder(tokenizer), 0
    with torch.inference_mode():
        for start in range(0, len(examples), 50):
            ids, mask = pad([encoder.example(one) for one in examples[start : start + 50]], tokenizer.pad_token_id)
            wrong = (model(input_ids=ids).logits[:, :-1].argmax(-1) != ids[:, 1:]) & mask[:, 1:].bool()
            right += int((~wrong.any(dim=1)).sum())
    return right / len(examples)


def pad(batch: list[tuple[list[int], list[int]]], filler: int) -> tuple[Any, Any]:
    """Ids and masks as tensors, filled up on the right."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [filler] * (longest - len(ids)) for ids, _ in batch])
    mask = torch.tensor([mask + [0] * (longest - len(mask)) for _, mask in batch])
    return ids, mask


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then down to zero along a cosine."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - recipe.warm_up) / (recipe.steps - recipe.warm_up)))


def _batches(encoder: Encoder, tokens: int, recipe: Recipe) -> Iterator[list[tuple[list[int], list[int]]]]:
    source = random.Random(recipe.seed)  # noqa: S311
    wishes, exercises = training(GENERIC, recipe.seed), spellings(recipe.seed)
    for step in range(recipe.steps):
        batch = []
        for _ in range(recipe.batch):
            drawn = source.random()
            if step < recipe.copy_steps or drawn < recipe.copy_share:
                said = [source.randrange(9, tokens) for _ in range(source.randrange(4, 20))]
                batch.append(encoder.frame(said, said, tools=False))
            elif drawn < recipe.copy_share + recipe.spelling_share:
                batch.append(encoder.example(next(exercises)))
            else:
                batch.append(encoder.example(next(wishes)))
        yield batch
