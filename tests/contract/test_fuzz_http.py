"""Schemathesis fuzzes the HTTP interface from its description: no 500, no traceback."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from planted import planted_guard
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from upstreams import Says

from kidrails_guard.proxy.app import build_app
from kidrails_guard.proxy.openapi import describe
from kidrails_guard.proxy.seams import OneTenant
from kidrails_guard.proxy.settings import Settings

UPSTREAM = Says()
APP = build_app(
    Settings("http://upstream.test"),
    tenants=OneTenant(planted_guard()),
    transport=UPSTREAM.transport(),
)
schema = schemathesis.openapi.from_dict(describe())
schema.app = APP
schema.config.update(base_url="http://proxy.test")

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_interface_holds_to_its_description(case: schemathesis.Case) -> None:
    response = case.call(app=APP) if hasattr(case, "call") else None
    assert response is not None
    assert "Traceback" not in response.text
    case.validate_response(response, checks=CHECKS)
