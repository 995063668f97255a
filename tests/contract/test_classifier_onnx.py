"""The shipped model file: what onnxruntime, the tokenizer and the manifest say of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from kidrails_guard.checks.classifier import ASKS, build
from kidrails_guard.classifier.encode import CLS, MARKS, SEP, encode
from kidrails_guard.classifier.labels import WIDTH, names
from kidrails_guard.classifier.model import FILES, SHIPPED, HazardModel, read_manifest
from kidrails_guard.classifier.rows import read_own
from kidrails_guard.content import content_path
from kidrails_guard.policy import load_policy
from kidrails_guard.types import AgeBand, Conversation, Hazard, Message, Stage


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        str(SHIPPED / "model.onnx"), providers=["CPUExecutionProvider"]
    )


def test_inputs_and_output_are_as_agreed(session: onnxruntime.InferenceSession) -> None:
    assert {i.name for i in session.get_inputs()} == {
        "input_ids",
        "attention_mask",
        "token_type_ids",
    }
    assert all(i.type == "tensor(int64)" for i in session.get_inputs())
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape[-1]) == ("logits", "tensor(float)", WIDTH)


def test_padding_and_company_do_not_change_a_text(session: onnxruntime.InferenceSession) -> None:
    ids = np.array([[CLS, 2, 2129, 2024, 2017, SEP]], np.int64)
    alone = session.run(
        None,
        {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        },
    )[0]
    padded = np.zeros((2, 9), np.int64)
    padded[0, :6], padded[1] = ids, CLS
    mask = (padded > 0).astype(np.int64)
    feeds = {"input_ids": padded, "attention_mask": mask, "token_type_ids": np.zeros_like(padded)}
    together = session.run(None, feeds)[0]
    # int8 activations are scaled by the whole batch, so equal only nearly.
    assert np.abs(alone[0] - together[0]).max() < 0.6


def test_the_repository_stays_small() -> None:
    assert sum((SHIPPED / name).stat().st_size for name in FILES) < 26_000_000


def test_the_manifest_says_where_it_comes_from() -> None:
    manifest = read_manifest(SHIPPED)
    assert manifest["licence"] == manifest["encoder"]["licence"] == "Apache-2.0"
    assert tuple(manifest["outputs"]) == names()
    assert manifest["settings"]["seed"] == 7
    assert sum(manifest["texts"]["train"].values()) > 5_000
    assert not {"harmbench", "safe_child_llm", "xstest"} & set(manifest["texts"]["train"])
    assert manifest["quantised"]["texts_with_all_decisions_equal"] > 0.9
    for band in AgeBand:
        firm = manifest["calibration"]["thresholds"][band]
        weak = manifest["calibration"]["weak"][band]
        assert all(0 < weak[name] <= firm[name] < 1 for name in firm)
    text = json.dumps(manifest)
    assert "/work/" not in text
    assert "/home/" not in text  # data/messages/homes.tsv is no home


def test_scores_on_the_development_rows_are_calibrated() -> None:
    bins = read_manifest(SHIPPED)["reliability"]
    rows = sum(b["rows"] for b in bins)
    error = sum(b["rows"] * abs(b["score"] - b["share"]) for b in bins) / rows
    assert error < 0.02


def test_the_tokenizer_keeps_the_marks_free() -> None:
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    assert tokenizer.token_to_id("[CLS]") == CLS
    assert tokenizer.token_to_id("[SEP]") == SEP
    used = {i for row in _texts() for i in tokenizer.encode(row, add_special_tokens=False).ids}
    assert not used & set(MARKS.values())


def _texts() -> list[str]:
    data = Path(__file__).resolve().parents[2] / "data"
    return [row.text for row in read_own(data)]


def test_what_is_run_is_what_was_trained(session: onnxruntime.InferenceSession) -> None:
    model = HazardModel(SHIPPED)
    text = "why do the wolves eat the pigs"
    (window,) = encode(model._tokenizer, text, stage=Stage.INPUT)
    ids = np.array([window.ids], np.int64)
    feeds = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.array([window.types], np.int64),
    }
    assert np.allclose(session.run(None, feeds)[0], model.logits(text, stage=Stage.INPUT))


def test_only_replies_that_ask_for_personal_data_are_sure_to() -> None:
    classifier = build(load_policy())
    counted: dict[bool, list[bool]] = {True: [], False: []}
    for row in read_own(content_path("data")):
        if row.stage is Stage.OUTPUT and row.split != "train":
            asks = Hazard.PERSONAL_DATA in row.hazards
            if asks or not row.hazards:
                before = Conversation(tuple(Message(t.role, t.text) for t in row.turns))
                found = classifier.find(before, row.text, AgeBand.MIDDLE, Stage.OUTPUT)
                counted[asks].append(any(f.case == ASKS for f in found))
    assert len(counted[False]) > 1_500
    assert not any(counted[False])
    assert np.mean(counted[True]) > 0.4
