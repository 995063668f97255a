"""The files that an operator starts from: read strictly, and against what the product really has.

No container engine is asked: the composition is read by a model of the Compose specification that
knows every key which is used here and no other, so a misspelt key is an error.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field
from upstreams import free_port

from kidrails_guard.commands import keys as keys_command
from kidrails_guard.commands import serve as serve_command
from kidrails_guard.guard import Guard
from kidrails_guard.proxy.keys import load_keys
from kidrails_guard.proxy.metrics import PrometheusMeter
from kidrails_guard.proxy.seams import Failure, OneTenant
from kidrails_guard.types import Action, Hazard, Stage

ROOT = Path(__file__).resolve().parent.parent.parent
SERVE = ROOT / "serve"
COMPOSE = SERVE / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(:[-?][^}]*)?\}")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Build(Strict):
    context: str
    dockerfile: str
    args: dict[str, str] = {}


class Healthcheck(Strict):
    test: list[str] = Field(min_length=2)
    interval: str = Field(pattern=r"^\d+s$")
    start_period: str = Field(default="0s", pattern=r"^\d+s$")


class Logging(Strict):
    driver: Literal["json-file"]
    options: dict[str, str]


class Service(Strict):
    image: str | None = None
    build: Build | None = None
    user: str = Field(pattern=r"^\d+:\d+$")
    entrypoint: list[str] | None = None
    command: list[str] = []
    environment: dict[str, str] = {}
    ports: list[str] = []
    volumes: list[str] = []
    networks: list[str]
    depends_on: list[str] = []
    healthcheck: Healthcheck | None = None
    deploy: dict[str, Any] = {}
    shm_size: str | None = None
    stop_grace_period: str = Field(default="10s", pattern=r"^\d+s$")
    restart: Literal["unless-stopped"]
    read_only: Literal[True]
    cap_drop: list[str]
    security_opt: list[str]
    tmpfs: list[str]
    pids_limit: int
    logging: Logging


class Compose(Strict):
    name: str
    services: dict[str, Service]
    networks: dict[str, dict[str, bool]]
    volumes: dict[str, dict[str, str]]


class Unique(yaml.SafeLoader):
    """Reads YAML, merge keys included, and refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        said = [self.construct_object(key) for key, _ in node.value if key.tag != MERGE]
        assert len(said) == len(set(said)), (said, node.start_mark)
        return super().construct_mapping(node, deep)


MERGE = "tag:yaml.org,2002:merge"


def strict_yaml(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=Unique)


@pytest.fixture(scope="module")
def compose() -> Compose:
    values = strict_yaml(COMPOSE)
    return Compose.model_validate({k: v for k, v in values.items() if not k.startswith("x-")})


def test_every_service_of_the_product_is_there(compose: Compose) -> None:
    assert set(compose.services) == {"guard", "litellm", "vllm", "redis", "prometheus", "grafana"}


def test_the_guard_is_the_only_way_in_and_nothing_else_gets_out(compose: Compose) -> None:
    assert [n for n, s in compose.services.items() if s.ports] == ["guard"]
    assert compose.networks["inside"] == {"internal": True}
    for name, service in compose.services.items():
        assert set(service.networks) <= set(compose.networks)
        assert service.networks == (["inside", "outside"] if name == "guard" else ["inside"])


def test_every_container_is_hardened(compose: Compose) -> None:
    for name, service in compose.services.items():
        assert service.cap_drop == ["ALL"], name
        assert service.security_opt == ["no-new-privileges:true"], name
        assert int(service.user.split(":")[0]) > 0, name
        assert service.tmpfs[0] == "/tmp", name
        assert {"max-size", "max-file"} <= set(service.logging.options), name
        assert not any("docker.sock" in volume for volume in service.volumes), name


def test_every_image_is_pinned(compose: Compose) -> None:
    version = re.compile(r"[\w./-]+:v?\d+\.\d+\.\d+(-[\w.-]+)?(@sha256:[0-9a-f]{64})?")
    for name, service in compose.services.items():
        assert (service.image is None) != (service.build is None), name
        if service.image:
            assert version.fullmatch(service.image), service.image
    froms = re.findall(r"^FROM (\S+)", (SERVE / "Containerfile").read_text(), re.MULTILINE)
    assert len(set(froms)) == 1
    assert all(version.fullmatch(image) for image in froms)


def test_mounts_are_there_read_only_or_named(compose: Compose) -> None:
    for service in compose.services.values():
        for volume in service.volumes:
            source, target, *mode = VARIABLE.sub("VARIABLE", volume).split(":")
            assert target.startswith("/")
            if source.startswith("."):
                assert (SERVE / source).resolve().is_file(), volume
                assert mode == ["ro"], volume
            elif source == "VARIABLE":
                assert mode == ["ro"], volume
            else:
                assert source in compose.volumes, volume


def test_services_find_each_other_where_they_listen(compose: Compose) -> None:
    port = _option(compose.services["guard"].command, "--port")
    listens = {
        "guard": _option(compose.services["guard"].command, "--metrics-port"),
        "litellm": _option(compose.services["litellm"].command, "--port"),
        "vllm": _option(compose.services["vllm"].command, "--port"),
        "redis": "6379",
        "prometheus": "9090",
    }
    files = [COMPOSE, SERVE / "litellm/upstream.yaml", SERVE / "prometheus/prometheus.yml"]
    files += [SERVE / "grafana/datasource.yaml"]
    text = "\n".join(re.sub(r"^\s*#.*$", "", f.read_text(), flags=re.MULTILINE) for f in files)
    named = re.findall(r"(?://|\")([a-z]+):(\d{4,5})\b", text)
    assert {name for name, _ in named} == set(listens)
    assert all(listens[name] == port for name, port in named)
    assert set(compose.services) >= {d for s in compose.services.values() for d in s.depends_on}
    # The numbers tell who had a crisis where, and ask for no key: their port stays inside.
    assert compose.services["guard"].ports == [f"${{KIDRAILS_PORT:-8080}}:{port}"]
    assert port != listens["guard"]


def _option(command: list[str], name: str) -> str:
    joined = " ".join(command)
    match = re.search(rf"{name}[= ](\S+)", joined)
    assert match, (name, command)
    return match[1]


def test_secrets_have_no_default(compose: Compose) -> None:
    for service in compose.services.values():
        for name, value in service.environment.items():
            if re.search(r"KEY|PASSWORD|SECRET|TOKEN", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name


def parse(module: Any, words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    return parser.parse_args(words)


def test_the_guards_command_is_one_of_ours(compose: Compose) -> None:
    guard = compose.services["guard"]
    assert guard.command[0] == "serve"
    chosen = parse(serve_command, guard.command[1:])
    deployment = serve_command._deployment(chosen)
    # Nothing that workers need to share is left unshared.
    assert chosen.workers > 1
    assert deployment.sessions.startswith("redis://")
    assert deployment.measured
    assert not deployment.metrics
    # What it writes lies on its one volume.
    written = {deployment.keys, deployment.audit}
    assert all(path.startswith("/state/") for path in written)
    grace = int(guard.stop_grace_period.rstrip("s"))
    assert grace > chosen.shutdown_seconds + 5
    assert guard.healthcheck is not None
    compile(guard.healthcheck.test[-1], "healthcheck", "exec")


def test_the_commands_in_the_comments_are_ours(compose: Compose) -> None:
    lines = re.findall(r"^#\s+docker compose (.+)$", COMPOSE.read_text(), re.MULTILINE)
    runs = [shlex.split(line) for line in lines if " run " in line]
    assert runs
    for words in runs:
        at = words.index("guard")
        assert words[at + 1] == "keys"
        chosen = parse(keys_command, words[at + 2 :])
        assert str(chosen.file) == _option(compose.services["guard"].command, "--keys")


def test_the_model_is_called_the_same_everywhere(compose: Compose) -> None:
    served = _option(compose.services["vllm"].command, "--served-model-name")
    models = strict_yaml(SERVE / "litellm/upstream.yaml")["model_list"]
    assert [m["litellm_params"]["model"] for m in models] == [f"hosted_vllm/{served}"]
    target = _option(compose.services["vllm"].command, "--model")
    assert any(v.endswith(f":{target}:ro") for v in compose.services["vllm"].volumes)


def test_redis_takes_its_command(compose: Compose) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on the PATH; on Debian: apt-get install redis-server")
    command = [program, *compose.services["redis"].command[1:], "--port", str(free_port())]
    running = subprocess.Popen(
        [*command, "--bind", "127.0.0.1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert running.stdout is not None
    said = ""
    for line in running.stdout:
        said += line
        if "Ready to accept connections" in line:
            break
    running.terminate()
    running.communicate()
    assert "Ready to accept connections" in said, said
    assert "FATAL" not in said


# --- the image


def instructions() -> list[tuple[str, str]]:
    text = (SERVE / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_not_root_and_installs_by_hash(compose: Compose) -> None:
    steps = instructions()
    last = steps[max(i for i, (word, _) in enumerate(steps) if word == "FROM") :]
    users = [rest for word, rest in last if word == "USER"]
    assert users == [compose.services["guard"].user]
    assert not [rest for word, rest in last if word == "ADD"]
    assert dict(last)["ENTRYPOINT"] == '["kidrails"]'
    assert dict(last)["STOPSIGNAL"] == "SIGTERM"
    for word, rest in steps:
        for install in re.findall(r"pip install [^&]+", rest):
            assert word == "RUN"
            own = install.split()[-1] == "."
            assert "--require-hashes" in install or (own and "--no-deps" in install), install


def test_what_the_image_copies_is_there_and_let_through(compose: Compose) -> None:
    locks = {"serve"} | {
        s.build.args["LOCK"] for s in compose.services.values() if s.build and s.build.args
    }
    for service in compose.services.values():
        if service.build:
            assert (COMPOSE.parent / service.build.context).resolve() == ROOT
            assert (ROOT / service.build.dockerfile).is_file()
    for lock in locks:
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        assert "--hash=sha256:" in text
        assert "pytest==" not in text
        assert (ROOT / "requirements" / f"{lock}.in").is_file()
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert all((ROOT / name).exists() for name in let_through)
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    forced = {name.partition("/")[0] for name in wheel["force-include"]}
    needed = {*wheel["packages"], *forced, "pyproject.toml", "requirements"}
    needed |= {project["project"]["readme"], *project["project"]["license-files"]}
    assert needed <= let_through


def test_the_secrets_of_an_operator_are_shipped_nowhere(compose: Compose) -> None:
    (written,) = re.findall(r"^#\s+(\(umask 077; .*)$", COMPOSE.read_text(), re.MULTILINE)
    assert written.endswith(">serve/.env)")
    needed = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    assert needed == set(re.findall(r"([A-Z_]+)=%s", written))
    for name in (".gitignore", ".dockerignore"):
        ignored = (ROOT / name).read_text().splitlines()
        assert {".env", "**/.env"} & set(ignored), name
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    forced = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {f"serve/{path.name}" for path in SERVE.iterdir()} - {"serve/.env"} == {
        name for name in forced if name.startswith("serve")
    }
    assert all(forced[name] == f"kidrails_guard/_content/{name}" for name in forced)


def test_the_header_of_the_composition_writes_what_it_says(tmp_path: Path) -> None:
    shell, openssl = shutil.which("sh"), shutil.which("openssl")
    if shell is None or openssl is None:
        pytest.skip("no sh or openssl on the PATH; on Debian: apt-get install openssl")
    (written,) = re.findall(r"^#\s+(\(umask 077; .*)$", COMPOSE.read_text(), re.MULTILINE)
    (tmp_path / "serve").mkdir()
    subprocess.run([shell, "-c", written], cwd=tmp_path, check=True)
    file = tmp_path / "serve/.env"
    assert file.stat().st_mode & 0o077 == 0
    values = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert re.fullmatch(r"[0-9a-f]{64}", values["LITELLM_MASTER_KEY"])


def test_litellms_header_sets_every_variable_that_its_file_reads() -> None:
    text = (SERVE / "litellm/config.yaml").read_text()
    said = set(re.findall(r"\b([A-Z_]+)=", "".join(re.findall(r"^#\s+export .*$", text, re.M))))
    live = "".join(line for line in text.splitlines(keepends=True) if "#" not in line)
    assert set(re.findall(r"os\.environ/(\w+)", live)) <= said


def test_the_locks_agree_with_the_one_that_the_tests_run_with() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        return set(re.findall(r"^([\w.-]+(?:\[[\w,-]+\])?==\S+)", text, re.MULTILINE))

    tested = pins("dev")
    assert tested
    assert pins("serve") <= tested
    assert pins("litellm") <= tested


# --- what is watched


def exposed() -> dict[str, set[str]]:
    """Every sample name that the guard exposes, with its labels."""
    meter = PrometheusMeter()
    meter.expect(OneTenant(Guard()).all())
    meter.check("lexicon", Stage.INPUT, 0.1, failed=True)
    meter.held(3, 0.1)
    meter.request("chat", 200, 0.1)
    meter.streams(1)
    found: dict[str, set[str]] = {}
    for line in meter.exposition()[0].decode().splitlines():
        if not line.startswith("#"):
            name, _, labels = line.partition(" ")[0].partition("{")
            found.setdefault(name, set()).update(re.findall(r"(\w+)=\"", labels))
    return found


VALUES = {
    "action": {action.label for action in Action},
    "hazard": set(Hazard),
    "stage": set(Stage),
    "kind": set(get_args(Failure)),
}
NOT_OURS = {"up": {"job"}}


def queries() -> list[str]:
    board = json.loads((SERVE / "grafana/kidrails.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = strict_yaml(SERVE / "prometheus/alerts.yml")
    asked += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    assert len(asked) > 15
    return asked


@pytest.mark.parametrize("query", queries())
def test_what_is_asked_is_exposed(query: str) -> None:
    known = exposed()
    names = set(re.findall(r"\b(kidrails_\w+)", query))
    assert names or "up{" in query
    assert names <= set(known), sorted(names - set(known))
    labels = set().union(*(known[name] for name in names), *NOT_OURS.values())
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        assert {label.strip() for label in grouped.split(",")} <= labels
    for label, how, value in re.findall(r"(\w+)(=~|!=|!~|=)\"([^\"]*)\"", query):
        assert label in labels
        if label in VALUES and "~" in how:
            assert any(re.fullmatch(value, one) for one in VALUES[label]), value
        elif label in VALUES:
            assert value in VALUES[label]


COUNTED = re.compile(r"sum(?: by \(check\))? ?\(increase\((\w+)(?:\{[^}]*\})?\[\w+\]\)\)")


def fires(alert: str, **counts: float) -> bool:
    """Whether an alert's counts and shares hold; what is left of them is Python, too."""
    (group,) = strict_yaml(SERVE / "prometheus/alerts.yml")["groups"]
    (expr,) = [rule["expr"] for rule in group["rules"] if rule["alert"] == alert]
    numbers = COUNTED.sub(lambda match: str(counts[match[1].removeprefix("kidrails_")]), expr)
    assert re.fullmatch(r"[\d.\s>*and]+", numbers), numbers
    return bool(eval(numbers))


@pytest.mark.parametrize(
    ("alert", "failures", "runs"),
    [
        ("KidRailsChecksFail", "check_failures_total", "check_seconds_count"),
        ("KidRailsUpstreamFails", "failures_total", "requests_total"),
        ("KidRailsSessionsFail", "failures_total", "requests_total"),
    ],
)
def test_an_alarm_goes_off_for_one_class_and_is_quiet_for_a_town(alert, failures, runs) -> None:
    assert fires(alert, **{failures: 3, runs: 3})  # three messages, none went through
    assert not fires(alert, **{failures: 0, runs: 3})
    assert not fires(alert, **{failures: 1.05, runs: 1.05})  # once may happen
    assert not fires(alert, **{failures: 100, runs: 100_000})
    assert fires(alert, **{failures: 50_000, runs: 100_000})


def test_a_judge_that_takes_a_models_time_is_no_lack_of_processors() -> None:
    (group,) = strict_yaml(SERVE / "prometheus/alerts.yml")["groups"]
    (expr,) = [r["expr"] for r in group["rules"] if r["alert"] == "KidRailsSlowChecks"]
    assert expr.count('{check!="judge"}') == expr.count("kidrails_check_seconds")


def test_each_alert_and_metric_is_explained_to_whoever_is_woken() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    rules = strict_yaml(SERVE / "prometheus/alerts.yml")["groups"][0]["rules"]
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert f"`{rule['alert']}`" in text, rule["alert"]
    samples = {name for name in exposed() if not name.endswith("_created")}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples}
    missing = {name for name in bases if f"`{name}`" not in text}
    assert not missing
    failures = set(get_args(Failure))
    assert not {kind for kind in failures if f"`{kind}`" not in text}


def test_grafana_is_given_the_board_and_its_numbers(compose: Compose) -> None:
    grafana = compose.services["grafana"]
    inside = {v.split(":")[1] for v in grafana.volumes}
    boards = strict_yaml(SERVE / "grafana/boards.yaml")["providers"][0]["options"]["path"]
    assert f"{boards}/kidrails.json" in inside
    home = grafana.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in inside
    (source,) = strict_yaml(SERVE / "grafana/datasource.yaml")["datasources"]
    board = json.loads((SERVE / "grafana/kidrails.json").read_text())
    assert {p["datasource"]["type"] for p in board["panels"]} == {source["type"]}


def test_the_example_key_file_is_one() -> None:
    (entry,) = load_keys(SERVE / "keys.example.yaml").keys
    assert entry.limits.requests_per_minute == 120
