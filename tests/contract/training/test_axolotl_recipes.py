"""What axolotl itself says about the shipped recipes, and about what we claim of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kidrails_guard.cli import main
from kidrails_guard.content import content_path
from kidrails_guard.recipes.axolotl_checks import capabilities, judge_answer
from kidrails_guard.recipes.environment import ask_axolotl
from kidrails_guard.recipes.findings import Level
from kidrails_guard.recipes.library import recipe_names
from kidrails_guard.recipes.masking import label_conversation
from kidrails_guard.recipes.patterns import match_patterns
from kidrails_guard.recipes.preflight import meant_machine
from kidrails_guard.recipes.rendered import load_rendered

if TYPE_CHECKING:
    from conftest import Workshop

# A busy machine may take ten times as long.
pytestmark = [pytest.mark.train, pytest.mark.timeout(1800)]

WRONG = {
    "unknown key": {"learning_rat": 1e-5},
    "unknown key in a data set": {
        "datasets": [{"path": "x", "type": "chat_template", "field_mesages": "m"}]
    },
    "optimizer": {"optimizer": "adamw_tourch"},
    "reentrant": {"gradient_checkpointing_kwargs": {"use_reentrant": True}},
    "type": {"micro_batch_size": "many"},
}


@pytest.fixture(scope="module")
def answers(train_python: Path) -> dict[str, dict[str, Any]]:
    """Ask once: starting axolotl takes longer than all its answers."""
    jobs = {}
    for name in recipe_names():
        recipe = load_rendered(name)
        machine = meant_machine(recipe)
        jobs[name] = {
            "config": dict(recipe.config),
            "capabilities": capabilities(machine.kind, machine.gpus),
            "local": False,
            "rows": 0,
        }
    for name, change in WRONG.items():
        jobs[name] = {**jobs["kidrails"], "config": {**jobs["kidrails"]["config"], **change}}
    found = ask_axolotl(
        list(jobs.values()), python=train_python, root=content_path("recipes").parent
    )
    return dict(zip(jobs, found, strict=True))


@pytest.mark.parametrize("name", recipe_names())
def test_axolotl_accepts_every_shipped_recipe(
    name: str, answers: dict[str, dict[str, Any]]
) -> None:
    results = judge_answer(answers[name], load_rendered(name).config, machine="h100")
    assert [r.text for r in results if r.level is Level.PROBLEM] == []
    assert answers[name]["unknown"] == []


@pytest.mark.parametrize("name", WRONG)
def test_what_axolotl_would_drop_or_trip_over_is_a_problem(
    name: str, answers: dict[str, dict[str, Any]]
) -> None:
    config = {**load_rendered("kidrails").config, **WRONG[name]}
    results = judge_answer(answers[name], config, machine="h100")
    assert any(r.level is Level.PROBLEM for r in results)


PATTERNS = [
    "^model.layers.1.mlp.down_proj.weight$",
    "model.layers.1",
    r"^model\.layers\.1\.mlp",
    "model.layers.+down_proj",
    "model.*",
    "layers.1.",
    "model.layers.1[01].self_attn.[qk]_proj",
    "model.embed_tokens.weight$[:100]",
    "lm_head",
]

LABELS = """
import json, sys
from transformers import AutoTokenizer
from axolotl.prompt_strategies import load
from axolotl.utils.chat_templates import get_chat_template
from axolotl.utils.dict import DictDefault
from axolotl.utils.freeze import LayerNamePattern
model, data, llama3, question, out = sys.argv[1:]
patterns, names = json.load(open(question))
matched = [[n for n in names if LayerNamePattern(p).match(n)] for p in patterns]
tokenizer = AutoTokenizer.from_pretrained(model)
rows = [json.loads(line) for line in open(data)]
entry = {"type": "chat_template", "chat_template": "tokenizer_default",
         "roles_to_train": ["assistant"], "train_on_eos": "turn", "field_messages": "messages"}
cfg = DictDefault({"sequence_len": 512, "train_on_inputs": False})
strategy = load("chat_template", tokenizer, cfg, DictDefault(entry))
done = [strategy.tokenize_prompt(row) for row in rows]
encoded = [[[tokenizer.apply_chat_template(row["messages"][:n], tokenize=True, return_dict=False,
                                          add_generation_prompt=header) if n else
             (tokenizer("<|im_start|>assistant\\n", add_special_tokens=False)["input_ids"]
              if header else [])
             for header in (False, True)] for n in range(len(row["messages"]) + 1)] for row in rows]
texts = []
for template in (get_chat_template("llama3"), open(llama3).read()):
    texts.append([tokenizer.apply_chat_template(
        [{**m, "content": "  " + m["content"] + " "} for m in row["messages"]],
        chat_template=template, tokenize=False, add_generation_prompt=header)
        for row in rows for header in (False, True)])
json.dump({"axolotl": [[list(d["input_ids"]), list(d["labels"])] for d in done],
           "encoded": encoded, "eos": tokenizer.eos_token_id, "same": texts[0] == texts[1],
           "text": texts[1][0], "matched": matched}, open(out, "w"))
"""


NAMES = [
    *(
        f"model.layers.{i}.{kind}.weight"
        for i in range(12)
        for kind in ("mlp.down_proj", "self_attn.q_proj", "self_attn.k_proj")
    ),
    "model.embed_tokens.weight",
    "lm_head.weight",
    "modelXlayers.1.mlp",
]


@pytest.fixture(scope="module")
def theirs(workshop: Workshop) -> dict[str, Any]:
    """What axolotl's own classes make of our patterns, rows and template."""
    template = content_path("recipes/templates/llama3.jinja")
    (workshop.root / "question.json").write_text(json.dumps([PATTERNS, NAMES]))
    done = workshop.run(
        "-c", LABELS, "tiny", "sft.jsonl", str(template), "question.json", "labels.json"
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((workshop.root / "labels.json").read_text())
    return found


def test_patterns_match_as_axolotls_own_class_does(theirs: dict[str, Any]) -> None:
    ours = [list(match_patterns([pattern], NAMES).names) for pattern in PATTERNS]
    assert ours == theirs["matched"]


def test_our_llama3_template_is_axolotls(theirs: dict[str, Any]) -> None:
    assert theirs["same"]
    assert "<|start_header_id|>user<|end_header_id|>" in theirs["text"]


def test_our_labels_are_axolotls(theirs: dict[str, Any], workshop: Workshop) -> None:
    lines = (workshop.root / "sft.jsonl").read_text().splitlines()
    rows = [json.loads(line)["messages"] for line in lines]
    for turns, encoded, (tokens, labels) in zip(
        rows, theirs["encoded"], theirs["axolotl"], strict=True
    ):
        example = label_conversation(
            turns, lambda part, header, table=encoded: table[len(part)][header], eos=theirs["eos"]
        )
        assert list(example.tokens) == tokens
        assert list(example.labels) == labels


def test_validate_reads_the_rows_with_the_models_own_tokenizer(
    in_workshop: Workshop, write_spec: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(
        "short",
        "extends: kidrails-small\nbase_model: tiny\narchitecture: null\n"
        "data: {train: sft.jsonl, held_out: 0.1}\nsequence_len: 64\noutput: outputs/short\n",
    )
    render = ["recipe", "render", str(spec), "--selection", "selection.json", "-o", "short.yml"]
    assert main(render) == 0
    text = Path("short.yml").read_text()
    long = text.replace("sequence_len: 64", "sequence_len: 256")
    Path("fits.yml").write_text(long)
    # A token that the model does not have, and one that does not end its turns.
    Path("token.yml").write_text(long.replace("pad_token: <|im_end|>", "pad_token: <|pad|>"))
    Path("turn.yml").write_text(long.replace("eos_token: <|im_end|>", "eos_token: <|im_start|>"))
    capsys.readouterr()
    files = ["short.yml", "fits.yml", "token.yml", "turn.yml"]
    assert main(["recipe", "validate", *files, "--json"]) == 1
    short, fits, token, turn = json.loads(capsys.readouterr().out)

    # The longest rows have two answers and do not fit 64 tokens: axolotl would drop them silently.
    assert wrong(short) == {"lengths"}
    assert short["longest"] > 64
    learnt = ["".join(text for on, text in row if on) for row in short["shown"]]
    assert all(text.endswith("<|im_end|>") and "bends" in text for text in learnt)
    assert not any("why is the" in text for text in learnt)
    assert fits["ok"]
    assert "tokenizer" in wrong(token)
    assert "labels" in wrong(turn)


def wrong(report: dict[str, Any]) -> set[str]:
    return {r["check"] for r in report["results"] if r["level"] == "problem"}
