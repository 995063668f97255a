"""vLLM really started on the CPU: one start of about 45 s for all tests here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import psutil
import pytest

from kidrails_guard.engine.base import Backend, Phase
from kidrails_guard.engine.launch import EngineOptions, plan_engine
from kidrails_guard.engine.models import default_gguf
from kidrails_guard.engine.process import EngineProcess
from kidrails_guard.engine.vllm import MAKE, find_vllm
from kidrails_guard.errors import MissingDependency

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

QUESTION = [{"role": "user", "content": "What do whales eat? Answer in one short sentence."}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[EngineProcess]:
    try:
        found = find_vllm()
        default_gguf()
    except MissingDependency as error:
        pytest.skip(str(error))
    if not found.cpu:
        pytest.skip(f"{found.where} is not the build for CPUs; run: {MAKE}")
    with pytest.MonkeyPatch.context() as patch:
        if "KIDRAILS_CACHE" not in os.environ:
            # Exported once in a checkout's life: half a gigabyte.
            patch.setenv("KIDRAILS_CACHE", str(repository / "build" / "cache"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        plan = plan_engine(EngineOptions(backend=Backend.VLLM, port=port, context=1024))
    process = EngineProcess(plan)
    process.start()
    phases: list[Phase] = []
    try:
        process.wait_ready(progress=lambda phase, _: phases.append(phase))
        assert Phase.STARTING in phases
        yield process
    finally:
        process.stop()


@pytest.fixture
def client(engine: EngineProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=engine.url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_the_model_is_offered_under_the_same_name(
    client: openai.OpenAI, engine: EngineProcess
) -> None:
    (model,) = client.models.list()
    assert model.id == engine.name == "smollm2-135m-instruct"


def test_an_answer_and_its_stream_are_the_same_and_end_by_themselves(
    client: openai.OpenAI, engine: EngineProcess
) -> None:
    request = {"model": engine.name, "messages": QUESTION, "temperature": 0, "max_tokens": 200}
    whole = client.chat.completions.create(**request).choices[0]
    assert whole.finish_reason == "stop"
    assert "whale" in whole.message.content.lower()
    assert "<|" not in whole.message.content
    parts = list(client.chat.completions.create(**request, stream=True))
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == whole.message.content
    assert parts[-1].choices[0].finish_reason == "stop"


def test_it_listens_on_this_machine_only_and_ends_with_all_its_workers(
    engine: EngineProcess,
) -> None:
    root = psutil.Process(engine.pid)
    family = [root, *root.children(recursive=True)]
    assert len(family) >= 3  # the leash, the server, its engine
    listening = {
        c.laddr.ip
        for process in family
        for c in process.net_connections("inet")
        if c.status == psutil.CONN_LISTEN and c.laddr.port == engine.plan.port
    }
    assert listening == {"127.0.0.1"}
    engine.stop()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
