"""One customer's adapter: LoRA by PEFT, trained by TRL's SFTTrainer, with the record of its training beside it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from datasets import Dataset, disable_progress_bars  # type: ignore[import-not-found]
from peft import LoraConfig  # type: ignore[import-not-found]
from transformers import (  # type: ignore[import-not-found]
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    set_seed,
)
from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

from backend.tiny_agents.base import NAME, Encoder
from backend.tiny_agents.examples import training
from backend.tiny_agents.houses import House

RANK: Final = 16
TRAINING_RECORD: Final = "training_record.json"  # what `failsoft backend check` holds an adapter against
_LINEARS: Final = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is trained."""

    steps: int = 300
    batch: int = 16
    learning_rate: float = 3e-3
    seed: int = 1


def train_adapter(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    house: House,
    folder: Path,
    recipe: Recipe,
    tell: Callable[[int, float], None],
) -> Any:
    """Train ``house``'s adapter for ``model``, write it to ``folder``, and return the adapted model.

    ``model`` is changed on the way: hand in a copy. ``tell`` hears a step's number and the loss up to it.
    """
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=list(_LINEARS)
    )
    disable_progress_bars()
    set_seed(recipe.seed)  # the trainer does so only once PEFT has drawn the first matrices
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            adam_beta2=0.98,
            optim="adamw_torch_fused",
            seed=recipe.seed,
            data_seed=recipe.seed,
            completion_only_loss=True,
            max_length=None,
            gradient_checkpointing=False,
            logging_steps=20,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(tokenizer, house, recipe),
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[_Teller(tell)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
    _save(trainer.model, folder, recipe)
    return trainer.model.eval()


def _dataset(tokenizer: PreTrainedTokenizerFast, house: House, recipe: Recipe) -> Dataset:
    encoder = Encoder(tokenizer)
    count = recipe.steps * recipe.batch  # each example once
    encoded = [encoder.example(example) for example in islice(training(house, recipe.seed), count)]
    return Dataset.from_dict(
        {"input_ids": [ids for ids, _ in encoded], "completion_mask": [mask for _, mask in encoded]}
    )


def _save(adapted: Any, folder: Path, recipe: Recipe) -> None:
    adapted.save_pretrained(folder, save_embedding_layers=False)  # "auto" would look for the base on the network
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"].sort()  # PEFT writes a set, in an order that changes from process to process
    config["base_model_name_or_path"] = NAME
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text)
    record = {**config, "steps": recipe.steps, "learning_rate": recipe.learning_rate, "seed": recipe.seed}
    (folder / TRAINING_RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


class _Teller(TrainerCallback):  # type: ignore[misc]
    def __init__(self, tell: Callable[[int, float], None]) -> None:
        self._tell = tell

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if logs and "loss" in logs:
            self._tell(state.global_step, float(logs["loss"]))
