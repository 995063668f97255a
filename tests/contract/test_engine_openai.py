"""The embedded engine as OpenAI's own client and a browser see it; llama.cpp really runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest
from safetensors.numpy import save_file
from served import Served
from tiny_checkpoint import tiny_weights, write_tiny

from kidrails_guard.engine.adapter import convert_adapter, extract_delta
from kidrails_guard.engine.launch import EngineOptions, plan_engine
from kidrails_guard.engine.models import DEFAULT_NAME, default_gguf
from kidrails_guard.engine.process import EngineProcess
from kidrails_guard.engine.supervisor import BackOff, Supervisor
from kidrails_guard.engine.to_gguf import convert_checkpoint
from kidrails_guard.errors import EngineError, MissingDependency

QUESTION = [{"role": "user", "content": "What do whales eat? Answer in one short sentence."}]

try:
    default_gguf()
except MissingDependency as error:
    pytest.skip(str(error), allow_module_level=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def engine() -> Iterator[Supervisor]:
    plan = plan_engine(EngineOptions(port=free_port(), context=2048, threads=1))
    supervisor = Supervisor(plan, back_off=BackOff(first_s=0.05))
    supervisor.start()
    supervisor.wait_ready()
    yield supervisor
    supervisor.stop()


@pytest.fixture
def client(engine: Supervisor) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=engine.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def ask(client: openai.OpenAI, **changes: Any) -> Any:
    values = {"model": DEFAULT_NAME, "messages": QUESTION, "temperature": 0, "max_tokens": 60}
    return client.chat.completions.create(**{**values, **changes})


class TestApi:
    def test_the_model_is_offered_by_name_without_its_path(self, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == [DEFAULT_NAME]
        answer = ask(client, max_tokens=1)
        assert answer.model == DEFAULT_NAME
        assert "/" not in answer.model

    def test_an_answer_ends_by_itself_at_the_end_of_the_turn(self, client: openai.OpenAI) -> None:
        answer = ask(client, max_tokens=400)
        choice = answer.choices[0]
        assert choice.finish_reason == "stop"
        assert "whale" in choice.message.content.lower()
        # Neither a token of the template nor the child's next turn, invented.
        assert "<|" not in choice.message.content
        assert "user\n" not in choice.message.content
        assert answer.usage.completion_tokens < 400

    def test_a_stream_gives_the_same_words(self, client: openai.OpenAI) -> None:
        whole = ask(client).choices[0]
        parts = list(ask(client, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in parts if c.choices)
        assert text == whole.message.content
        assert len(parts) > 10
        finished = [c.choices[0].finish_reason for c in parts if c.choices]
        assert finished[-1] == whole.finish_reason
        assert parts[-1].usage.completion_tokens > 10

    def test_the_systems_words_reach_the_model(self, client: openai.OpenAI) -> None:
        told = [{"role": "system", "content": "Your name is Zog. You always say your name."}]
        question = [{"role": "user", "content": "What is your name?"}]
        assert "Zog" in ask(client, messages=told + question).choices[0].message.content

    def test_an_answer_can_be_held_to_a_schema(self, client: openai.OpenAI) -> None:
        schema = {
            "type": "object",
            "properties": {"animal": {"type": "string", "enum": ["whale", "cow"]}},
            "required": ["animal"],
            "additionalProperties": False,
        }
        shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        answer = ask(client, response_format=shape)
        assert json.loads(answer.choices[0].message.content)["animal"] in {"whale", "cow"}

    def test_likelihoods_are_given(self, client: openai.OpenAI) -> None:
        answer = ask(client, logprobs=True, top_logprobs=5, max_tokens=3)
        tokens = answer.choices[0].logprobs.content
        assert len(tokens) == 3
        assert all(len(token.top_logprobs) == 5 for token in tokens)

    def test_too_long_a_question_is_an_error_and_not_a_crash(
        self, client: openai.OpenAI, engine: Supervisor
    ) -> None:
        words = [{"role": "user", "content": "and the sea " * 2000}]
        with pytest.raises(openai.BadRequestError, match="context"):
            ask(client, messages=words)
        assert engine.alive
        assert ask(client, max_tokens=1).choices

    @pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages": 3}', b'{"messages": [{}]}'])
    def test_nonsense_is_an_error_and_not_a_crash(self, engine: Supervisor, body: bytes) -> None:
        reply = httpx.post(
            f"{engine.url}/chat/completions",
            content=body,
            headers={"content-type": "application/json"},
        )
        assert reply.status_code in {400, 500}
        assert "error" in reply.json()
        assert engine.alive


class TestPrivacy:
    @pytest.mark.parametrize("path", ["/slots", "/metrics", "/", "/index.html", "/tools"])
    def test_nothing_shows_what_others_wrote_and_no_page_skips_the_guard(
        self, engine: Supervisor, path: str
    ) -> None:
        root = engine.url.removesuffix("/v1")
        reply = httpx.get(root + path)
        assert reply.status_code in {403, 404, 501}

    def test_another_sites_page_may_not_read_an_answer(self, engine: Supervisor) -> None:
        reply = httpx.get(f"{engine.url}/models", headers={"Origin": "http://elsewhere.example"})
        allowed = reply.headers.get("access-control-allow-origin", "")
        assert allowed == engine.url.removesuffix("/v1")
        assert reply.headers.get("access-control-allow-credentials") != "true"

    def test_only_this_machine_is_served(self, engine: Supervisor) -> None:
        process = psutil.Process(engine.pid)
        ends = {c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
        assert ends == {"127.0.0.1"}

    def test_a_question_is_not_printed(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with log.open("w+") as echo:
            plan = plan_engine(EngineOptions(port=free_port(), context=512, threads=1))
            process = EngineProcess(plan, echo=echo)
            process.start()
            try:
                process.wait_ready()
                body = {"messages": [{"role": "user", "content": "zanzibarquux"}], "max_tokens": 4}
                httpx.post(f"{plan.url}/chat/completions", json=body, timeout=60)
                long = {"messages": [{"role": "user", "content": "zanzibarquux " * 900}]}
                assert httpx.post(f"{plan.url}/chat/completions", json=long).status_code == 400
            finally:
                process.stop()
        assert "zanzibarquux" not in log.read_text()


class TestCrashes:
    def test_a_killed_engine_breaks_the_stream_and_comes_back(
        self, client: openai.OpenAI, engine: Supervisor
    ) -> None:
        before = engine.restarts
        stream = ask(client, stream=True, max_tokens=500, extra_body={"ignore_eos": True})
        received = []

        def read_and_kill() -> None:
            for chunk in stream:
                received.append(chunk)
                if len(received) == 5:
                    assert engine.pid is not None
                    os.killpg(engine.pid, signal.SIGKILL)

        with pytest.raises((openai.APIError, httpx.HTTPError)):
            read_and_kill()
        assert 5 <= len(received) < 500
        end = time.monotonic() + 60
        while engine.restarts == before and time.monotonic() < end:
            time.sleep(0.05)
        assert engine.restarts == before + 1
        assert ask(client, max_tokens=5).choices[0].message.content

    def test_it_ends_when_its_starter_is_killed(self) -> None:
        port = free_port()
        starter = subprocess.Popen(
            [sys.executable, "-m", "kidrails_guard", "engine", "--port", str(port), "--json"],
            stdout=subprocess.PIPE,
        )
        assert starter.stdout is not None
        said = b""
        while not said.endswith(b"}\n"):
            said += starter.stdout.readline()
        record = json.loads(said)
        assert record["state"] == "ready"
        server = psutil.Process(record["pid"])
        starter.kill()
        starter.wait()
        starter.stdout.close()
        psutil.wait_procs([server], timeout=20)
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE

    def test_a_request_to_end_ends_it_with_0(self) -> None:
        port = free_port()
        command = [sys.executable, "-m", "kidrails_guard", "engine", "--port", str(port)]
        starter = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith(b"ready: http://127.0.0.1:")
        children = psutil.Process(starter.pid).children(recursive=True)
        assert children
        starter.terminate()
        said, complaint = starter.communicate(timeout=30)
        assert (starter.returncode, said, complaint) == (0, b"", b"")
        gone, alive = psutil.wait_procs(children, timeout=20)
        assert len(gone) == len(children)
        assert not alive


def likelihoods(file: Path, *, adapter: Path | None = None) -> dict[int, float]:
    """Return the log-likelihood of the 40 likeliest next tokens after a fixed question."""
    with Served(file, adapter=adapter) as served:
        return served.next_tokens("why is the sky")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[np.ndarray]]]:
    """A folder with ``base`` and ``tuned`` as checkpoint and GGUF, and the factors between them."""
    work, rng, weights = (
        tmp_path_factory.mktemp("changed"),
        np.random.default_rng(3),
        tiny_weights(),
    )
    factors = {}
    for name in (QUERY, DOWN):
        rows, columns = weights[name].shape
        up, down = rng.normal(size=(rows, 3)), rng.normal(size=(3, columns))
        factors[name] = [up.astype(np.float32), down.astype(np.float32)]
        weights[name] = (weights[name] + 0.2 * up @ down).astype(np.float32)
    for name, values in (("base", None), ("tuned", weights)):
        folder = write_tiny(work / name, weights=values)
        convert_checkpoint(folder, work / f"{name}.gguf", weight_type="f32")
    return work, factors


QUERY = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize("kind", ["delta f32", "delta q8_0", "trained"])
def test_base_and_adapter_together_speak_as_the_tuned_model(
    changed: tuple[Path, dict[str, list[np.ndarray]]], kind: str
) -> None:
    work, factors = changed
    adapter = work / f"{kind.replace(' ', '-')}.gguf"
    if kind == "trained":  # as peft saves it: the factor 0.2 is alpha / r = 0.6 / 3
        folder = work / "lora"
        folder.mkdir()
        save_file(
            {
                f"base_model.model.{name.removesuffix('.weight')}.lora_{letter}.weight": values
                for name, (up, down) in factors.items()
                for letter, values in (("A", down), ("B", up))
            },
            folder / "adapter_model.safetensors",
        )
        settings = {"peft_type": "LORA", "r": 3, "lora_alpha": 0.6}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        convert_adapter(folder, work / "base", adapter)
    else:
        rank = 32 if kind.endswith("q8_0") else 3
        extract_delta(
            work / "tuned", work / "base", adapter, rank=rank, weight_type=kind.split()[1]
        )
    plain = likelihoods(work / "base.gguf")
    wanted = likelihoods(work / "tuned.gguf")
    found = likelihoods(work / "base.gguf", adapter=adapter)
    common = sorted(wanted.keys() & found.keys())
    near = 0.15 if kind.endswith("q8_0") else 0.01
    assert len(common) >= 38
    assert [found[t] for t in common] == pytest.approx([wanted[t] for t in common], abs=near)
    both = sorted(wanted.keys() & plain.keys())
    assert max(abs(plain[t] - wanted[t]) for t in both) > 0.5


@pytest.mark.parametrize("damage", ["cut", "adapter of nothing"])
def test_what_llamacpp_refuses_is_told_in_its_words(tmp_path: Path, damage: str) -> None:
    convert_checkpoint(write_tiny(tmp_path / "tiny"), tmp_path / "t.gguf")
    options = EngineOptions(model=str(tmp_path / "t.gguf"), port=free_port(), context=256)
    if damage == "cut":
        (tmp_path / "t.gguf").write_bytes((tmp_path / "t.gguf").read_bytes()[:-5000])
        message = r"exit status 1\): tensor .* not within the file bounds"
    else:
        (tmp_path / "a.gguf").write_bytes((tmp_path / "t.gguf").read_bytes())
        options = EngineOptions(
            model=options.model, port=options.port, context=256, adapter=tmp_path / "a.gguf"
        )
        message = r"exit status 1\): .*(adapter|lora)"
    process = EngineProcess(plan_engine(options))
    process.start()
    with pytest.raises(EngineError, match=message):
        process.wait_ready()
    assert not process.alive


def test_the_exported_tokenizer_cuts_as_llamacpp_does(engine: Supervisor, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    from kidrails_guard.engine.gguf_file import GgufFile
    from kidrails_guard.engine.vocabulary import tokenizer_json

    vocabulary = GgufFile(default_gguf()).vocabulary()
    tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(vocabulary)))
    root = engine.url.removesuffix("/v1")
    for text in TEXTS:
        body = {"content": text, "parse_special": True}
        wanted = httpx.post(f"{root}/tokenize", json=body).json()["tokens"]
        assert tokenizer.encode(text).ids == wanted, text
        assert tokenizer.decode(wanted, skip_special_tokens=False) == text


TEXTS = (
    "Why is the sky blue?",
    "I'm 8 years, 1234567 and don't we'll they've",
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "  two   spaces\n\n\tand\ttabs \n ",
    "Ünïcödé straße 日本語 한국어 🦊👩‍👩‍👧",
    "a1b2c3 ٣٤٥ ½ x² №5",
    "'s 'S ' ’s 'RE",
    "…—“quotes”·· \u00a0\u200b end",
    "",
)
